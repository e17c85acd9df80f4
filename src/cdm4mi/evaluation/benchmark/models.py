"""The models of a study: read from their files, or trained into the study's folder where they are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from cdm4mi.config.load import load_config
from cdm4mi.config.schema import Config
from cdm4mi.config.tree import COMMAND_LINE
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.config import MethodSection, ModelMethod
from cdm4mi.evaluation.benchmark.scans import StudyScan
from cdm4mi.evaluation.leakage import refuse_leaks
from cdm4mi.files import below
from cdm4mi.models.checkpoint import TrainedModel, load_model


def check_models(methods: Sequence[MethodSection], scans: Sequence[StudyScan]) -> None:
    """Raise UserError for a model that cannot be read or has seen a test patient, before any of them is trained."""
    for method in methods:
        if not isinstance(method, ModelMethod):
            continue
        if method.config is not None:
            _configuration(method)
        else:
            refuse_leaks(method.title, load_model(method.checkpoint).about.data, scans)


def model_of(method: ModelMethod, folder: Path, scans: Sequence[StudyScan], say: Callable[[str], None]) -> TrainedModel:
    """The model of a method, checked for leakage before and after training.

    folder: of the models that the study trains; one that was stopped goes on where it was. Raises UserError where a
    test patient was, or would be, trained on.
    """
    if method.config is None:
        model = load_model(method.checkpoint)
    else:
        config = _configuration(method)
        model = load_model(trained(config, below(folder, place_of(config)), method.title, scans, say, method.weights))
    refuse_leaks(method.title, model.about.data, scans)
    return model


def _configuration(method: ModelMethod) -> Config:
    """What a method is trained with. Raises UserError, of an override with the method that it stands in."""
    assert method.config is not None
    try:
        return load_config(method.config, method.overrides)
    except UserError as error:
        raise UserError(f"method {method.title}: {str(error).replace(COMMAND_LINE, 'overrides', 1)}") from None


def place_of(config: Config) -> str:
    """Name of a run's folder: the configuration's name and a hash of all that it says."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    return f"{config.name}-{digest[:8]}"


def trained(
    config: Config,
    run: Path,
    title: str,
    scans: Sequence[StudyScan],
    say: Callable[[str], None],
    weights: str = "best",
) -> Path:
    """The checkpoint of a finished run of this configuration, which is trained, or trained on, where need be."""
    from cdm4mi.training.last_checkpoint import newest_checkpoint
    from cdm4mi.training.run import PairData, train

    last = newest_checkpoint(run / "checkpoints")
    if last is None or (load_model(last).about.step or 0) < config.training.max_tsteps:
        data = PairData(config)
        refuse_leaks(title, data.summary, scans)
        say(f"training {title}, {config.training.max_tsteps} steps (log: {run / 'logs'})")
        last = train(config, run, resume=True, progress=False, data=data)
    file = last.with_name(f"{weights}.ckpt")
    if not file.exists():
        raise UserError(f"{title}: its run has no checkpoints/{weights}.ckpt, expected a finished run")
    return file
