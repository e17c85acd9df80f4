"""Griffe extension: ``name: meaning`` in a docstring's prose, where name is a parameter or attribute, is set apart."""

from __future__ import annotations

import re
from typing import Any

import griffe

TERM = re.compile(r"(?:(?<=[.;] )|^)([a-z]\w*(?:, [a-z]\w*)*): (?=\S)", flags=re.MULTILINE)


def set_apart(text: str, names: set[str]) -> str:
    """Each term whose names are all in ``names`` begins a point of a list; from Google's sections on, text stays."""
    prose, *rest = re.split(r"(?=^(?:Args|Returns|Raises|Yields):$)", text, maxsplit=1, flags=re.MULTILINE)
    paragraphs = []
    for paragraph in prose.split("\n\n"):
        # a term may begin in one line and end in the next
        joined = paragraph if paragraph.startswith(" ") else re.sub(r"\n(?=\S)", " ", paragraph)
        listed = TERM.sub(lambda m: f"\n- **{m[1]}**: " if names >= set(m[1].split(", ")) else m[0], joined)
        if listed != joined:
            listed = re.sub(r"(?<=\. )(?=Raises [A-Z])", "\n\n", listed.replace("\n- ", "\n\n- ", 1))
        paragraphs.append(listed.strip("\n"))
    return "\n\n".join(paragraphs).rstrip("\n") + ("\n\n" + rest[0] if rest else "")


class Parameters(griffe.Extension):
    """Parameters of a function; parameters of a class's constructor and its attributes."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring:
            func.docstring.value = set_apart(func.docstring.value, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring:
            made = cls.members.get("__init__")
            given = {parameter.name for parameter in made.parameters} if isinstance(made, griffe.Function) else set()
            cls.docstring.value = set_apart(cls.docstring.value, given | set(cls.members))
