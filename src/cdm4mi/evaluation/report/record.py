"""A finished study as it lies on disk, read for a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.results import FORMAT, IMAGES, RECORD, SCORES

NAN = float("nan")


@dataclass(frozen=True)
class Figure:
    """A mean over patients with its 95 % bootstrap interval; nan where it cannot be told."""

    value: float = NAN
    low: float = NAN
    high: float = NAN


class Record:
    """study.json, the scores beside it, and the images.

    Raises UserError for a folder that holds no finished study.
    """

    def __init__(self, run: Path) -> None:
        try:
            self.said: dict[str, Any] = json.loads((run / RECORD).read_text(encoding="utf-8"))
            if self.said.get("format") != FORMAT:
                raise UserError(f"{run}: is of format {self.said.get('format')}, expected {FORMAT}; run it anew")
            self._scores = {
                (number, label): json.loads((run / SCORES / file).read_text(encoding="utf-8"))
                for number, level in enumerate(self.said["levels"])
                for label, file in level["scores"].items()
            }
            self._means = {key: _means(scores) for key, scores in self._scores.items()}
            with np.load(run / IMAGES, allow_pickle=False) as kept:
                self.images = {name: kept[name].astype(np.float32) for name in kept}
        except (OSError, ValueError, KeyError) as error:
            what = error.filename if isinstance(error, OSError) and error.filename else str(error)
            raise UserError(
                f"{run}: holds no finished study ({Path(str(what)).name} is missing or damaged), expected the folder "
                "of cdm4mi benchmark or sweep"
            ) from None

    @property
    def methods(self) -> list[str]:
        return [method["title"] for method in self.said["methods"]]

    @property
    def main(self) -> str:
        return str(self.said["main"])

    @property
    def levels(self) -> list[dict[str, Any]]:
        return list(self.said["levels"])

    @property
    def protocols(self) -> list[dict[str, Any]]:
        return list(self.said["protocols"])

    def metrics(self, label: str) -> list[str]:
        """Every metric that some mean of the protocol has, in its order."""
        return list(
            dict.fromkeys(m["metric"] for n in range(len(self.levels)) for m in self._scores[n, label]["means"])
        )

    def mean(self, level: int, label: str, method: str, region: str, metric: str) -> Figure:
        """A mean over patients."""
        return self._means[level, label].get((method, region, metric), Figure())

    def means(self, level: int, metric: str) -> dict[str, float]:
        """The means of a metric by method, as figures show them: first protocol, first region."""
        protocol = self.protocols[0]
        label, region = protocol["label"], protocol["regions"][0]
        return {method: self.mean(level, label, method, region, metric).value for method in self.methods}

    @property
    def noisy(self) -> list[int]:
        """Numbers of the methods that leave the noisy input as it is."""
        return [n for n, m in enumerate(self.said["methods"]) if not m["family"] and "tuned" not in m]

    def patients(self, level: int, label: str) -> list[dict[str, Any]]:
        """One entry a method, region and patient, with its scores."""
        return list(self._scores[level, label]["patients"])

    def tests(self, level: int, label: str) -> list[dict[str, Any]]:
        """The paired tests of the main method."""
        return list(self._scores[level, label]["tests"])

    def error_unit(self, protocol: Mapping[str, Any]) -> str:
        """Of MAE, RMSE and bias."""
        if protocol["error_unit"] == "scale":
            low, high = protocol["scale"] or (0, 1)
            return f"on [{low:g}, {high:g}]"
        units = {r["unit"] for r in self._scores[0, protocol["label"]]["ranges"].values()}
        return units.pop() if len(units) == 1 else "mixed units"


def _means(scores: Mapping[str, Any]) -> dict[tuple[str, str, str], Figure]:
    """By method, region and metric."""
    return {
        (m["method"], m["region"], m["metric"]): Figure(*(number(m[key]) for key in ("value", "low", "high")))
        for m in scores["means"]
    }


def number(value: Any) -> float:
    """A number as JSON holds it: null for what cannot be told, text for infinities."""
    return NAN if value is None else float(value)


def known(value: float) -> bool:
    """Whether a figure can be told."""
    return not math.isnan(value)
