"""Typed configuration: the schema, and loading it from YAML, from presets and from the original work's files."""

from cdm4mi.config.load import load_config, load_preset, parse_config, preset_names, save_config
from cdm4mi.config.schema import Config

__all__ = ["Config", "load_config", "load_preset", "parse_config", "preset_names", "save_config"]
