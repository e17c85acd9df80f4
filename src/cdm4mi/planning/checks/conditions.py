"""Checks of conditions: aligned with their targets, noisier than those, and with the stated noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdm4mi.data.patient import Patient
from cdm4mi.data.real_pairs import MOST_SHIFT
from cdm4mi.data.records import Alignment
from cdm4mi.degradation import Degradation
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.planning.checks.subject import Finding, Subject, spread_out

PATIENTS = 12
"""Patients whose real pairs are checked."""
NEIGHBOURS = 15
"""Adjacent slices of each patient, around the middle."""
SWAPPED = 0.95
"""A condition with less than this share of its target's noise is taken for a swapped one."""
BRIGHT = -0.5
"""On [-1, 1]: in brighter parts of an MR magnitude image the noise is close enough to Gaussian to be measured."""
CUT = 1 - 1e-3
LEAST_BRIGHT = 0.1
"""Least share of bright pixels in a patch; a darker patch is measured as a whole."""
NOTHING = 1e-4
"""Differences below this are rounding."""
EXACT = 0.1
"""Tolerated relative difference of the measured noise from the level given to the model."""
NOISY_TARGET = 1.5
"""Targets with more noise than this factor times the least added noise teach a model to keep noise."""


def check_conditions(subject: Subject) -> list[Finding]:
    """Findings about real pairs, or about simulated noise."""
    if subject.real:
        return [check_alignment(subject), check_order(subject), *check_level(subject)]
    return [*check_level(subject), check_targets(subject)]


def check_alignment(subject: Subject) -> Finding:
    """Shift of the conditions against their targets, as ``prepare`` measured it on every pair (phase correlation)."""
    found: dict[str, Alignment] = {}
    for scan in subject.manifest.scans if subject.manifest else []:
        if scan.pair is not None:
            worst_so_far = found.setdefault(scan.patient, scan.pair)
            found[scan.patient] = max(worst_so_far, scan.pair, key=lambda one: one.away)
    away = {patient: alignment for patient, alignment in found.items() if alignment.away > MOST_SHIFT}
    if away:
        patient, worst = max(away.items(), key=lambda item: item[1].away)
        slices, rows, columns = worst.shift
        message = (
            f"{len(away)} of {len(found)} patients out of line, worst {patient} by "
            f"{slices:g} slices, {rows:.2f} rows, {columns:.2f} columns"
        )
        return Finding("alignment", "wrong", message, "register the noisy scan to the clean one, or leave the pair out")
    return Finding("alignment", "ok", f"condition on target within {MOST_SHIFT:g} pixel for {len(found)} patients")


def check_order(subject: Subject) -> Finding:
    """The condition must be noisier than its target: else the two are swapped."""
    swapped = []
    looked_at = _some_pairs(subject)
    for patient, targets, conditions in looked_at:
        ratio = estimate_noise(conditions).sigma / max(estimate_noise(targets).sigma, 1e-9)
        if ratio < SWAPPED:
            swapped.append((ratio, subject.called(patient.name)))
    if swapped:
        ratio, name = min(swapped)
        message = (
            f"the condition is less noisy than its target for {len(swapped)} of {len(looked_at)} patients, "
            f"least for {name}: {ratio:.2f} of the target's noise"
        )
        return Finding(
            "order", "wrong", message, "noisy and clean are swapped: exchange `noisy` and `clean`, or the columns"
        )
    return Finding("order", "ok", "the condition is the noisier half of every pair")


def check_level(subject: Subject) -> list[Finding]:
    """Measured noise of training pairs against the noise level given to the model, and against the configured range."""
    measured, given = [], []
    for pair in subject.pairs:
        x0, difference = pair["x0"].numpy(), (pair["y"][: len(pair["x0"])] - pair["x0"]).numpy()
        bright = (x0 > BRIGHT) & (x0 < CUT)  # a real condition is not cut where its target is
        shown = difference[bright] if bright.mean() > LEAST_BRIGHT else difference
        measured.append(float(np.sqrt(np.mean(shown**2))))
        given.append(float(pair["sigma"]))
    levels, stated = np.array(measured), np.array(given)
    if levels.max() < NOTHING:
        message = "condition and target are equal"
        return [Finding("noise", "wrong", message, "give noisy scans as conditions, or simulate noise (data.noise)")]
    message = f"{levels.min():.3g} to {levels.max():.3g} on [-1, 1]"
    if subject.real:
        return [Finding("noise", "ok", f"real, {message}")]
    if subject.config.data.noise.type == "downsampled":  # lost detail is where edges are, not alike in every patch
        return [Finding("noise", "ok", f"detail lost, {message}")]
    ratio = float(np.median(levels / np.maximum(stated, NOTHING)))
    if abs(ratio - 1) > EXACT:
        advice = "the level misleads a model that is told it: look at data.noise and at what is foreground"
        return [Finding("noise", "wrong", f"{message}, {ratio:.2f} times the level that is stated", advice)]
    return [Finding("noise", "ok", f"{message}, {ratio:.2f} times the stated level")]


def check_targets(subject: Subject) -> Finding:
    """Noise in the clean images against the least noise that is added."""
    by_added: dict[tuple[float, float] | None, list[float]] = {}
    noise: Degradation = subject.config.data.noise
    for patient, k in subject.some_slices(6):
        frame = patient.frame(k)
        added = noise.sigma_range(frame)
        image = np.asarray(patient.slices[k][:, :], np.float32)
        by_added.setdefault(added, []).append(estimate_noise(image.reshape(-1, *image.shape[-2:])).sigma)
    level = float(np.median([sigma for levels in by_added.values() for sigma in levels]))
    message = f"the clean images have noise of {level:.2g} on [-1, 1] of their own"
    least = [(float(np.median(levels)), added[0]) for added, levels in by_added.items() if added is not None]
    loud = [pair for pair in least if pair[0] > NOISY_TARGET * pair[1]]
    if loud:
        message = (
            f"the clean images have noise of {max(loud)[0]:.2g} on [-1, 1] of their own, added is {max(loud)[1]:.2g}"
        )
        return Finding(
            "targets", "note", message, "raise the lower end of data.noise: a model learns to leave that noise in"
        )
    return Finding("targets", "ok", message)


def _some_pairs(subject: Subject) -> list[tuple[Patient, NDArray[Any], NDArray[Any]]]:
    """(patient, targets, conditions) on [-1, 1], (N, rows, columns): adjacent slices of some patients.

    Test patients are included: a fault there would spoil their scores.
    """
    found = []
    patients = [p for p in (*subject.every, *subject.test) if p.conditions is not None]
    unique = list({(p.name, p.source): p for p in patients}.values())
    for patient in spread_out(unique, PATIENTS):
        middle = len(patient.slices) // 2
        rows = range(max(0, middle - NEIGHBOURS // 2), min(len(patient.slices), middle + NEIGHBOURS // 2 + 1))
        targets = np.stack([np.asarray(patient.slices[k][:, :], np.float32) for k in rows])
        conditions = np.stack([np.asarray(patient.conditions[k][:, :], np.float32) for k in rows])
        found.append((patient, targets, conditions))
    return found
