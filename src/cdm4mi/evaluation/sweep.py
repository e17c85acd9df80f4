"""A sweep: trained models over a range of noise levels, those outside their training too, as a study of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdm4mi.choices import SHIPPED
from cdm4mi.data.manifest import is_store
from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.config import BenchmarkConfig, parse_benchmark
from cdm4mi.io.scan_file import ending


def sweep_config(
    models: Sequence[str],
    data: Path,
    protocol: str,
    noise: str,
    key: str,
    values: Sequence[float],
    test_patients: Sequence[str] | None = None,
    slices: int | None = None,
    crop: int | None = None,
    seed: int = 0,
) -> BenchmarkConfig:
    """The study of models (checkpoints, folders of runs, "shipped") over levels ``{type: noise, key: value}``.

    The first model is tested against the others. Raises UserError as a benchmark's configuration does.
    """
    if not values:
        raise UserError(field="values", found="none", expected="noise levels, as 0.01,0.05,0.1")
    names = _names(models)
    where: dict[str, Any] = {"kind": "store" if is_store(data) else "volumes", "paths": [str(data)]}
    where |= {"test_patients": list(test_patients)} if test_patients else {}
    where |= {name: count for name, count in (("slices", slices), ("crop", crop)) if count is not None}
    study = {
        "name": "sweep",
        "seed": seed,
        "protocols": [protocol],
        "data": where,
        "levels": [{"type": noise, key: value} for value in sorted(set(values))],
        "methods": [
            {"type": "noisy"},
            *({"type": "model", "name": n, "checkpoint": m} for n, m in zip(names, models, strict=True)),
        ],
        "main": names[0],
    }
    return parse_benchmark(study, "sweep")


def _names(models: Sequence[str]) -> list[str]:
    """The last part of each path, numbered where two are the same."""
    found: list[str] = []
    for model in models:
        path = Path(model)
        name = SHIPPED if model == SHIPPED else path.name.removesuffix(ending(path))
        if name in ("last", "best") and path.parent.name == "checkpoints":
            name = f"{path.parent.parent.name} {name}"
        found.append(name)
    return [name if found.count(name) == 1 else f"{name} {found[: k + 1].count(name)}" for k, name in enumerate(found)]
