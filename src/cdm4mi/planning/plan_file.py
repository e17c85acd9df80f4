"""``plan.yaml`` of a store: a configuration with reasons as comments. A plan changed by hand is never replaced."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from cdm4mi import __version__
from cdm4mi.config.load import parse_config
from cdm4mi.config.schema import Config
from cdm4mi.config.yaml_text import read_file, read_value, yaml_text
from cdm4mi.data.fingerprint import write_fingerprint
from cdm4mi.data.manifest import read_manifest
from cdm4mi.errors import counted
from cdm4mi.files import replacing_file
from cdm4mi.planning.cost import seconds_a_step
from cdm4mi.planning.machine import Machine, this_machine
from cdm4mi.planning.plan import MINUTES, Choice, Plan, make_plan

NAME = "plan.yaml"
STORE = "# store "
MARK = "# as written "
WIDTH = 118
SECTIONS = ("data", "model", "training", "sampling")


@dataclass(frozen=True)
class Planned:
    """Path of the plan, the plan if it was written now, and a warning, for example that a changed plan was kept."""

    path: Path
    plan: Plan | None = None
    warning: str = ""


def write_plan(
    store: Path,
    *,
    minutes: float = MINUTES,
    machine: Machine | None = None,
    timed: Callable[[Config, Machine], float] = seconds_a_step,
    anew: bool = False,
) -> Planned:
    """Write fingerprint and plan beside the manifest of a store. An existing plan for the same store is kept.

    anew: replace it too, unless it was changed by hand. Raises UserError where there is no store, or nothing can be
    trained on it.
    """
    folder, manifest = read_manifest(store)
    target = folder / NAME
    known = target.read_text(encoding="utf-8") if target.is_file() else None
    of_this = known is not None and f"{STORE}{manifest.sha256}" in known
    fingerprint = write_fingerprint(folder, manifest)
    if known is not None and _digest(known) != _mark(known):
        other = "" if of_this else ", and the store has changed since"
        return Planned(target, None, f"{target}: was changed by hand{other}; it is kept (without it a new one is made)")
    if of_this and not anew:
        return Planned(target)
    machine = machine or this_machine()
    place = str(folder.resolve())
    plan = make_plan(fingerprint, machine, timed, store=place, name=_name(folder), minutes=minutes)
    text = plan_text(plan, fingerprint, machine, manifest.sha256)
    parse_config(read_value(text, str(target)), where=str(target))  # a place with ${ in its name, say
    with replacing_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    tight = "" if plan.fits else f"{target}: the least network may not fit into the free memory of this machine"
    return Planned(target, plan, tight)


def load_plan(store: str | Path, overrides: Sequence[str] = (), *, minutes: float = MINUTES) -> Config:
    """The plan of a store as a configuration; a plan for ``minutes`` of training is written where there is none.

    A store that was moved is read at its new path. overrides: as in ``load_config``. Raises UserError as
    ``write_plan`` and ``load_config``.
    """
    folder = Path(store) if Path(store).is_dir() else Path(store).parent
    plan = folder / NAME if (folder / NAME).is_file() else write_plan(folder, minutes=minutes).path
    where = json.dumps([str(folder)], ensure_ascii=False)
    return parse_config(read_file(plan), [f"data.paths={where}", *overrides], where=str(plan))


def plan_text(plan: Plan, fingerprint: Mapping[str, Any], machine: Machine, store: str) -> str:
    """The plan as the YAML of a configuration, with its data, machine and reasons as comments."""
    lines = [
        f"# What cdm4mi {__version__} plans to train on this store. Change what you like: a changed plan is kept.",
        f"#   cdm4mi train {NAME}",
        *(f"# {line}" for line in _facts(plan, fingerprint, machine)),
        f"{STORE}{store}",
    ]
    tree: dict[str, Any] = {}
    for choice in plan.choices:
        _place(tree, choice.key.split("."), choice)
    for key in ("name", "seed"):
        lines.append(f"{key}: {_value(tree[key].value)}")
    for section in SECTIONS:
        lines += [f"{section}:", *_section(tree[section], "  ")]
    text = yaml_text("\n".join(lines) + "\n")
    return f"{text}{MARK}{_digest(text)}\n"


def _facts(plan: Plan, fingerprint: Mapping[str, Any], machine: Machine) -> list[str]:
    people, slices = fingerprint["patients"], fingerprint["slices"]
    noise = fingerprint["noise"]
    facts = [
        "",
        f"Data: {', '.join(fingerprint['modalities'])}; "
        + ", ".join(f"{people[split]} patient(s) and {counted(slices[split], 'slice')} in {split}" for split in people)
        + f"; {len(fingerprint['sources'])} source(s), foreground {fingerprint['foreground_fraction'][1]:.0%}.",
        f"Noise of the scans on [-1, 1]: {noise['on_unit_scale'][0]:.2g} to {noise['on_unit_scale'][2]:.2g}.",
        f"Machine: {machine.described()}.",
        f"Expected: {plan.expected()}.",
    ]
    if not people["val"]:
        facts.append("No patient is left for validation: it sees what training sees.")
    if not plan.fits:
        facts.append("It may not fit into the free memory.")
    return [line for fact in facts for line in (wrap(fact, WIDTH) or [""])]


def _place(tree: dict[str, Any], path: Sequence[str], choice: Choice) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = choice


def _section(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Choice):
            lines += [f"{indent}# {line}" for line in wrap(value.why, WIDTH - len(indent))]
            lines.append(f"{indent}{key}: {_value(value.value)}")
        else:
            lines += [f"{indent}{key}:", *_section(value, indent + "  ")]
    return lines


def _value(value: Any) -> str:
    """A value as YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]*", value) and value not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _name(folder: Path) -> str:
    """A name for the run: the folder's name, without characters that a file name should not have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-") or "model"


def _mark(text: str) -> str | None:
    """The hash in the last line of a plan, by which a change by hand is noticed; None without one."""
    last = text.rstrip("\n").rsplit("\n", 1)[-1]
    return last.removeprefix(MARK) if last.startswith(MARK) else None


def _digest(text: str) -> str:
    """Hash of the text without the last line, if that is the mark."""
    body = text.split(f"\n{MARK}")[0].rstrip("\n")
    return hashlib.sha256(body.encode()).hexdigest()[:16]
