"""The residual test on noise that scanners and reconstructions make: repeats that are alike, and one that is not."""

from dataclasses import replace

import numpy as np
import pytest
from real_scans import SCANS, needs_scans

from cdm4mi import io
from cdm4mi.measure.noise_level import estimate_noise
from cdm4mi.trust import residual_test

pytestmark = needs_scans


@pytest.mark.parametrize("dose", ["010", "055", "100"])
def test_a_ct_whose_noise_was_removed_exactly_passes(dose):
    scan = io.read(SCANS / "lcd" / f"dose_{dose}" / "signal_absent" / "signal_absent.mhd")
    others = scan.array[1:].mean(axis=0)  # of nine other slices of the same phantom
    test = residual_test(scan.array[0], others, estimate_noise(scan.array[0]))
    assert test.reasons() == []
    assert test.level == pytest.approx((1 + 1 / 9) ** 0.5, abs=0.03)


def test_repeats_of_mr_pass_and_pulsating_fluid_does_not():
    scan = io.read(SCANS / "repeats" / "dti_21x2.nii.gz")

    def repeated(volume):
        """A volume against its repeat, which has as much noise: together sqrt(2) times of it."""
        y, repeat = scan.array[volume], scan.array[volume + 21]
        noise = estimate_noise(y)
        double = replace(noise, sigma=2**0.5 * noise.sigma, magnitude=False, map=None)
        return residual_test(y, repeat, double, spacing=scan.spacing)

    assert repeated(5).reasons() == []
    bright_fluid = repeated(0)  # b = 0
    assert not bright_fluid.passed and np.abs(bright_fluid.findings[0].score) > 15
