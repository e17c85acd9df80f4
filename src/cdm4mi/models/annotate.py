"""What is learnt of a trained model after its training, kept in its checkpoint: how to sample it, and facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.errors import UserError
from cdm4mi.files import replacing_file
from cdm4mi.models.about import Calibration, LesionCurve, StepsStudy
from cdm4mi.models.checkpoint import checkpoint_file, load_model
from cdm4mi.models.ckpt_file import read_ckpt
from cdm4mi.models.torch_file import save_torch


def annotate(
    path: str | Path,
    sampling: SamplingConfig | None = None,
    *,
    calibration: Calibration | None = None,
    steps_study: StepsStudy | None = None,
    lesions: LesionCurve | None = None,
) -> Path:
    """Write what is given into a checkpoint, and return the file: weights and all else stay as they are.

    path: a .ckpt or .safetensors of this project, or a run's folder (its best.ckpt); replaced as a whole or not at all.
    sampling: what ``denoise`` does by default from now on. calibration, steps_study, lesions: found
    again in ``TrainedModel.about``. Raises UserError for a file that is no such thing.
    """
    file = checkpoint_file(path)
    given = {"calibration": calibration, "steps_study": steps_study, "lesions": lesions}
    facts = {name: record.model_dump(mode="json") for name, record in given.items() if record is not None}
    if file.suffix == ".safetensors":
        _annotate_safetensors(file, sampling, facts)
    else:
        _annotate_ckpt(file, sampling, facts)
    return file


def _annotate_ckpt(file: Path, sampling: SamplingConfig | None, facts: dict[str, Any]) -> None:
    checkpoint = read_ckpt(file)
    own = checkpoint.get("cdm4mi")
    if own is None:
        raise UserError(f"{file}: is a checkpoint of the original work, expected one of cdm4mi train")
    load_model(file)  # refuses what is damaged, before anything is written
    _put_sampling(own["config"], sampling)
    own.update(facts)
    save_torch(checkpoint, file)


def _annotate_safetensors(file: Path, sampling: SamplingConfig | None, facts: dict[str, Any]) -> None:
    load_model(file)
    with safe_open(file, "pt") as f:
        metadata = dict(f.metadata())
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a mapping
    config = json.loads(metadata["config"])
    _put_sampling(config, sampling)
    metadata["config"] = json.dumps(config)
    metadata["about"] = json.dumps(json.loads(metadata.get("about", "{}")) | facts)
    with replacing_file(file) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # save_file gives the file to its owner alone


def _put_sampling(config: dict[str, Any], sampling: SamplingConfig | None) -> None:
    if sampling is not None:
        config["sampling"] = sampling.model_dump(mode="json")
