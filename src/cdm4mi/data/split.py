"""Splits by patient: no patient is in two of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cdm4mi.errors import UserError


def split_patients(
    patients: Sequence[str], val_fraction: float, seed: int, val_patients: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """(training, validation) patients, each sorted: at least one for validation, drawn by ``seed`` unless named.

    Raises UserError when a named patient is unknown or nobody is left to train on. A single patient is in both, which
    the caller must say.
    """
    names = sorted(set(patients))
    if not names:
        raise UserError("data: found no patient, expected at least one")
    if val_patients is not None:
        unknown = sorted(set(val_patients) - set(names))
        if unknown:
            raise UserError(f"data.val_patients: found {unknown[0]!r}, expected one of {', '.join(names[:20])}")
        val = sorted(set(val_patients))
    elif len(names) == 1:
        return names, names
    else:
        count = min(max(1, round(val_fraction * len(names))), len(names) - 1)
        val = sorted(np.random.default_rng(seed).permutation(names)[:count].tolist())
    train = [n for n in names if n not in set(val)]
    if not train:
        raise UserError("data.val_patients: found every patient, expected at least one left to train on")
    return train, val
