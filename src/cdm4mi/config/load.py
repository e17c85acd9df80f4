"""Load a configuration from YAML in any of its three layouts, with overrides; save it; name the shipped presets."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf
from pydantic import ValidationError

from cdm4mi.choices import SOLVERS
from cdm4mi.config import fields, legacy
from cdm4mi.config.errors import one_line
from cdm4mi.config.schema import Config
from cdm4mi.config.tree import COMMAND_LINE, Tree, parsed, put
from cdm4mi.config.yaml_text import plain, read_file, read_value, shown, yaml_text
from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file

logger = logging.getLogger("cdm4mi.config")

PRESETS = Path(__file__).parent / "presets"
BRIDGE_SOLVER: Final = "ddim"
BRIDGE_SPACING: Final = "trailing"
"""For sampling on a path that is without noise at some time."""


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """The validated configuration of a YAML file, or of a preset where ``path`` is no file but a preset's name.

    Three layouts load: the project's own sections, an experiment file of the original work, and a flat block of keys.
    Notices (keys that are ignored, names that mean something else here) go to the logger ``cdm4mi.config``.

    Args:
        overrides: ``key=value`` with the value in YAML syntax; the key is a dotted path of the project's layout or a
            unique end of one (``max_tsteps``); for a file of the original work also a path or name as in that file.

    Raises:
        UserError: one line with file, field, what was found and what was expected.
    """
    file = Path(path)
    name = os.fspath(path)
    if not file.exists() or (file.is_dir() and name in preset_names()):
        if name in preset_names():
            return load_preset(name, overrides)
        presets = ", ".join(preset_names())
        raise UserError(f"{name}: no such file, expected a YAML file or one of the presets: {presets}")
    return parse_config(read_file(file), overrides, where=name)


def load_preset(name: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a preset that ships with the package. Raises as ``load_config``."""
    if name not in preset_names():
        raise UserError(f"preset {name!r} is unknown, expected one of: {', '.join(preset_names())}")
    return parse_config(read_file(PRESETS / f"{name}.yaml"), overrides, where=f"preset {name}")


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def parse_config(mapping: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "configuration") -> Config:
    """The validated configuration of a mapping in any of the three layouts.

    Args:
        where: what messages call the mapping: its file, say.

    Raises:
        UserError: as ``load_config``.
    """
    raw = plain(mapping, where)
    if not isinstance(raw, dict):
        raise UserError(f"{where}: found {shown(raw)} at the top, expected a mapping of keys to values")
    pairs = parsed(overrides)
    notices: list[str] = []
    if legacy.is_legacy(raw):
        tree, notices = legacy.translate(raw, pairs, where)
    else:
        tree = Tree(legacy.with_present_names(raw))
        tree.override([(fields.find(key, COMMAND_LINE), value, key) for key, value in pairs])
    config = _validated(tree, where)
    notices += _suit_path(config, tree)
    for notice in notices:
        logger.warning("%s: %s", where, notice)
    return config


def keyword_config(keywords: Mapping[str, Any], where: str) -> Config:
    """The validated configuration of keyword arguments: keys of the sections model, training and sampling, and seed.

    A key is its bare name (``timesteps=1000``), a section a mapping (``unet_rosinality_config={"channel": 32}``,
    ``training={"betas": [0.9, 0.99]}`` where ``betas`` alone is the schedule's).

    Args:
        where: what messages call the caller: its class, say.

    Raises:
        UserError: one line that names the key, what was found and what was expected.
    """
    paths = [path for path in fields.table() if path[0] in ("model", "training", "sampling") or path == ("seed",)]
    values: dict[str, Any] = {}
    for key, value in keywords.items():
        put(values, fields.find(key, where, among=paths), value)
    return _validated(Tree(plain(values, where)), where)


def _suit_path(config: Config, tree: Tree) -> list[str]:
    """Give a path that the command line chose a solver that it allows, unless that was chosen there too; notices.

    A path without noise at some time allows the solvers of bridges only (``choices.SOLVERS``).
    """
    model, sampling = config.model, config.sampling
    noiseless = model.path == "i2sb" or (model.path == "bridge" and model.bridge_noise == 0)
    if not noiseless or SOLVERS[sampling.solver].bridges or _chosen(tree, ("sampling", "solver")):
        return []
    if not _chosen(tree, ("model", "path")) and not _chosen(tree, ("model", "bridge_noise")):
        return []
    before, sampling.solver = sampling.solver, BRIDGE_SOLVER
    if not _chosen(tree, ("sampling", "spacing")):
        sampling.spacing = BRIDGE_SPACING
    return [f"sampling.solver {before} is for paths with noise: {sampling.solver} ({sampling.spacing}) in its place"]


def _chosen(tree: Tree, path: fields.Path) -> bool:
    """Whether the command line gives a key, or a section that it is in."""
    return any(where == COMMAND_LINE and path[: len(given)] == given for given, (where, _) in tree.origins.items())


def _validated(tree: Tree, where: str) -> Config:
    try:
        return Config.model_validate(fields.fit(tree.values), strict=True)
    except ValidationError as error:
        raise UserError(one_line(error, where, tree.origins)) from None


def save_config(config: Config, path: str | os.PathLike[str]) -> None:
    """Write every key as YAML that ``load_config`` reads back equal; the file appears whole or not at all.

    Raises:
        UserError: it could not be read back (a text with ``${``, or more than about 10 000 betas), or not be written.
    """
    target = Path(path)
    values = yaml_text(json.dumps(plain(config.model_dump(), os.fspath(path)), ensure_ascii=False))
    text = OmegaConf.to_yaml(OmegaConf.create(json.loads(values)))
    read_value(text, os.fspath(path))
    try:
        with replacing_file(target) as temporary:
            temporary.write_text(f"# cdm4mi: the full configuration of a run\n{text}", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
