"""Keyword arguments in Python as a configuration: each by the bare name of its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdm4mi.config import fields
from cdm4mi.config.load import parse_config
from cdm4mi.config.schema import Config
from cdm4mi.config.tree import Tree
from cdm4mi.errors import UserError

SECTIONS = ("model", "training", "sampling")


def keyword_config(keywords: Mapping[str, Any], where: str) -> Config:
    """The validated configuration of keyword arguments: keys of the sections model, training and sampling, and seed.

    A key is its bare name (``timesteps=1000``), a section a mapping (``unet_rosinality_config={"channel": 32}``,
    ``training={"betas": [0.9, 0.99]}`` where ``betas`` alone is the schedule's).

    Args:
        where: what messages call the caller: its class, say.

    Raises:
        UserError: one line that names the key, what was found and what was expected.
    """
    known = [path for path in fields.table() if path[0] in SECTIONS or path == ("seed",)]
    tree = Tree({"model": {}})
    for key, value in keywords.items():
        found = fields.matches(key, known)
        if len(found) > 1:
            raise UserError(f"{where}: {key!r} is ambiguous, expected one of {', '.join(map('.'.join, found))}")
        if not found:
            raise UserError(f"{where}: unknown key {key!r}{fields.nearest(key, [path[-1] for path in known])}")
        tree.replace(found[0], value, where, key)
    return parse_config(tree.values, where=where)
