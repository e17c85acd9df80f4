"""The rows of the study: which noise on whose scans, made once and kept, and the classical methods tuned for it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from cdm4mi.evaluation.baselines import BASELINES
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.window import IntensityWindow
from experiments.real_noise.noises import MAKERS, Noisy
from experiments.real_noise.scans import CT, HEADS, MARGIN, REVERSED, T1, T2, TUNE, Scan, phantom, repeats, scan

CACHE = Path("runs/real_noise/cache")
VERSION = 1
"""Of what the cache holds: a change here that makes other images or figures needs another number."""
METHODS = {"nlm": "NLM", "tv": "TV", "bm3d": "BM3D"}
TUNE_SIDE = 96
NORMAL_MAD = 0.6744897501960817  # third quartile of the standard normal


@dataclass(frozen=True)
class Row:
    """One kind of noise. scans: by name; noise: a key of ``MAKERS`` and its arguments; magnitude: of complex data.

    phantom: dose of the CT phantom in place of scans; noise is then what the classical methods are tuned on.
    """

    key: str
    title: str
    scans: tuple[str, ...]
    noise: tuple[str, dict[str, Any]]
    magnitude: bool = False
    phantom: str | None = None

    @property
    def modality(self) -> str:
        return "CT" if self.phantom or self.scans == CT or self.scans == HEADS else "MR"


def _project(type: str, **keys: Any) -> tuple[str, dict[str, Any]]:
    return "simulated", {"type": type, **keys}


def _rician(percent: float, **keys: Any) -> tuple[str, dict[str, Any]]:
    return "magnitude", {"percent": percent, **keys}


WHITE = _project("gaussian", variance=0.05)
ZERO_FILLED = _rician(9, zero_filled=1.5)
ROWS = {
    row.key: row
    for row in (
        Row("ct-white", "CT, white, variance 0.05", CT, WHITE),
        Row("t1-white", "T1, white, variance 0.05", T1, WHITE),
        Row("t2-white", "T2, white, variance 0.05", T2, WHITE),
        Row("reversed-white", "T1 reversed, white, variance 0.05", REVERSED, WHITE),
        Row("ct-dose-25", "CT, 25 % of the dose", HEADS, _project("low_dose_ct", dose=0.25)),
        Row("ct-dose-10", "CT, 10 % of the dose", HEADS, _project("low_dose_ct", dose=0.1)),
        Row("ct-ramp", "CT, ramp noise of 40 HU", CT, ("ramp", {"sigma_hu": 40.0})),
        Row("t1-rician-3", "T1, Rician 3 %", T1, _rician(3), magnitude=True),
        Row("t1-rician-9", "T1, Rician 9 %", T1, _rician(9), magnitude=True),
        Row("t1-rician-15", "T1, Rician 15 %", T1, _rician(15), magnitude=True),
        Row("t2-rician-9", "T2, Rician 9 %", T2, _rician(9), magnitude=True),
        Row("t2-rician-15", "T2, Rician 15 %", T2, _rician(15), magnitude=True),
        Row("reversed-rician-9", "T1 reversed, Rician 9 %", REVERSED, _rician(9), magnitude=True),
        Row("t1-zero-filled", "T1, zero-filled 1.5x, Rician 9 %", T1, ZERO_FILLED, magnitude=True),
        Row("t2-zero-filled", "T2, zero-filled 1.5x, Rician 9 %", T2, ZERO_FILLED, magnitude=True),
        Row("t1-coils", "T1, Rician 5 %, varying with the coils", T1, _rician(5, varying=True), magnitude=True),
        Row("t1-smoothed", "T1, Rician 9 %, smoothed 0.7 px", T1, _rician(9, smoothing=0.7), magnitude=True),
        Row("phantom-100", "CT phantom, dose 100", (), ("ramp", {"sigma_hu": 20.0}), phantom="100"),
        Row("phantom-055", "CT phantom, dose 55", (), ("ramp", {"sigma_hu": 30.0}), phantom="055"),
        Row("phantom-010", "CT phantom, dose 10", (), ("ramp", {"sigma_hu": 70.0}), phantom="010"),
    )
}


def kept(make: Callable[[], dict[str, Any]], *facts: Any) -> dict[str, Any]:
    """What ``make`` returns (arrays, numbers), from the cache where these facts were asked for before."""
    text = json.dumps([VERSION, *facts], sort_keys=True)
    file = CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"
    if not file.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.part")  # studies may run side by side
        with unfinished.open("wb") as opened:
            np.savez(opened, **make())
        unfinished.rename(file)
    with np.load(file) as found:
        return {name: found[name].tolist() if found[name].ndim == 0 else found[name] for name in found}


def noisy(noise: tuple[str, dict[str, Any]], of: Scan) -> Noisy:
    """A scan's noisy slices, decided by the noise and the scan's name."""
    make, keys = noise
    seed = crc32(f"{json.dumps(noise)} {of.name}".encode())
    found = kept(lambda: MAKERS[make](of, seed, **keys)._asdict(), "noisy", make, keys, of.name)
    return Noisy(found["y"], found["reference"], found["sigma"])


def cases(row: Row) -> list[tuple[Scan, Noisy]]:
    """The scans of a row with their noise."""
    if row.phantom:
        clean, y = phantom(row.phantom)
        rows, columns = clean.square()
        truth = clean.volume.array
        return [(clean, Noisy(y, truth, float(np.std((y - truth)[:, rows, columns]))))]
    return [(scan(name), noisy(row.noise, scan(name))) for name in row.scans]


def psnr(x: np.ndarray, reference: np.ndarray, window: IntensityWindow) -> float:
    """dB over all slices at once, both clipped to the window, which is the data range."""
    error = window.normalised(x).clip(-1, 1) - window.normalised(reference).clip(-1, 1)
    return float(10 * np.log10(4 / np.mean(error.astype(np.float64) ** 2)))


def unbiased(x: np.ndarray, sigma: float) -> np.ndarray:
    """A denoised magnitude without the bias that Rician noise leaves: about sqrt(A^2 + sigma^2) was restored."""
    return np.sqrt(np.maximum(x.clip(min=0) ** 2 - sigma**2, 0))


def tuned(row: Row, method: str, blind: bool = True) -> dict[str, Any]:
    """The settings with the highest mean PSNR on other scans of the modality, at the measured or the true noise level.

    ``unbiased``: whether the bias of magnitudes is taken away afterwards; tried where the noise is of that kind.
    """
    baseline = BASELINES[method]

    def search() -> dict[str, Any]:
        losses: dict[int, list[float]] = {}
        for name in TUNE[row.modality]:
            clean = scan(name)
            y, reference, sigma = noisy(row.noise, clean)
            sigma = estimate_noise(y).sigma if blind else sigma
            rows, columns = clean.square(side=TUNE_SIDE)
            for n, settings in enumerate(baseline.grid):
                x = baseline(y[0, rows, columns], sigma, settings)
                for k, out in enumerate((x, unbiased(x, sigma)) if row.magnitude else (x,)):
                    score = psnr(out, reference[0, rows, columns], clean.window)
                    losses.setdefault(2 * n + k, []).append(-score)
        best = min(losses, key=lambda at: sum(losses[at]))
        return {**asdict(baseline.grid[best // 2]), "unbiased": best % 2}

    return kept(search, "tuned", method, row.noise, row.magnitude, blind)


def denoised(method: str, settings: dict[str, Any], of: Scan, y: np.ndarray, sigma: float) -> np.ndarray:
    """The judged square of slices (N, H, W) by a classical method."""
    baseline = BASELINES[method]
    keys = {k: v for k, v in settings.items() if k != "unbiased"}
    (rows, columns), wide = of.square(), of.square(MARGIN)
    inner = [
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip((rows, columns), wide, strict=True)
    ]
    x = np.stack([baseline(image[wide], sigma, type(baseline.default)(**keys))[tuple(inner)] for image in y])
    return unbiased(x, sigma) if settings["unbiased"] else x


def classical(row: Row, method: str, told: bool = False) -> float | None:
    """PSNR of a classical method, mean over the scans; None where it is not installed and was not kept either.

    told: at the true level, for tuning too, in place of the measured one.
    """
    if not BASELINES[method].installed:
        return None

    def judge() -> dict[str, Any]:
        settings = tuned(row, method, blind=not told)
        scores = []
        for of, case in cases(row):
            rows, columns = of.square()
            sigma = case.sigma if told else estimate_noise(case.y).sigma
            x = denoised(method, settings, of, case.y, sigma)
            scores.append(psnr(x, case.reference[:, rows, columns], of.window))
        return {"psnr": float(np.mean(scores))}

    facts = (method, row.scans, row.noise, row.magnitude, row.phantom, *(["told"] if told else []))
    return float(kept(judge, "classical", *facts)["psnr"])


WEIGHTED = (1, 5, 9, 13, 17)
"""Volumes of the first acquisition of ``repeats`` that are judged; volume i's repeat is i + 21."""
REPEAT_NOISE = _rician(15)
"""What the classical methods are tuned on for it: its noise is a sixth of its signal."""


def repeat_inside(data: np.ndarray) -> np.ndarray:
    """The foreground that is judged, bool, as the README of the data says."""
    mean = data[1:21].mean(0)
    return np.asarray(mean > 1.2 * mean.mean())


def repeat_sigma() -> float:
    """Noise level of the judged volumes, from the median absolute difference of both acquisitions."""
    data = repeats().array
    inside = repeat_inside(data)
    differences = [(data[i] - data[i + 21])[inside] for i in WEIGHTED]
    return float(np.median(np.abs(differences)) / NORMAL_MAD / np.sqrt(2))


def repeat_error(x: np.ndarray) -> float:
    """Root mean square error of restored volumes (5, slices, rows, columns) to their repeats without their own noise.

    As the README of the data says; in the scanner's units.
    """
    data = repeats().array
    inside = repeat_inside(data)
    squares = [
        np.mean((out - data[i + 21])[inside] ** 2) - np.mean((data[i] - data[i + 21])[inside] ** 2) / 2
        for out, i in zip(x, WEIGHTED, strict=True)
    ]
    return float(np.sqrt(np.mean(squares)))


def repeat_classical(method: str) -> float | None:
    """The error of a classical method that is given the noise level of ``repeat_sigma``, tuned on T1, Rician 15 %.

    Bias is left, as the repeat has it too.
    """
    if not BASELINES[method].installed:
        return None
    baseline = BASELINES[method]

    def judge() -> dict[str, Any]:
        settings = tuned(Row("", "", T1, REPEAT_NOISE), method, blind=False)
        keys = {k: v for k, v in settings.items() if k != "unbiased"}
        data, sigma = repeats().array, repeat_sigma()
        out = [[baseline(image, sigma, type(baseline.default)(**keys)) for image in data[i]] for i in WEIGHTED]
        return {"error": repeat_error(np.array(out))}

    return float(kept(judge, "repeats told", method)["error"])
