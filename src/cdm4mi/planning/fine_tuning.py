"""The configuration of a training that goes on from a trained model, on other scans."""

from __future__ import annotations

from collections.abc import Sequence

from cdm4mi.config.load import parse_config
from cdm4mi.config.schema import Config
from cdm4mi.models.checkpoint import load_model

STEPS = 2000
RATE = 0.25
"""The learning rate, in the model's own: its weights are to be kept in the main."""
WARMUP = 50


def fine_tuning(model: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a model, whose weights are those that the training begins with, for ``STEPS`` steps.

    The scans are not the model's: they have to be named. The learning rate falls to zero from ``RATE`` of the model's.

    Args:
        model: as ``models.checkpoint.load_model`` takes it.
        overrides: as ``config.load.load_config`` does.

    Raises:
        UserError: as both do.
    """
    config = load_model(model).config
    data = config.model_dump(mode="json")
    data["name"] = f"{config.name}-fine-tuned"
    data["data"] |= {"paths": [], "contrasts": [], "exclude_patients": [], "val_patients": None, "train_slices": None}
    data["training"] |= {
        "initial_weights": model,
        "max_tsteps": STEPS,
        "max_minutes": None,
        "learning_rate": RATE * config.training.learning_rate,
        "lr_decay": "cosine",
        "warmup": WARMUP,
        "val_every": min(config.training.val_every, STEPS // 4),
        "accelerator": "auto",
    }
    return parse_config(data, overrides, where=model)
