"""Mirror images: the mean over them does not depend on which of them is the scan, and takes calls for each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cdm4mi.errors import UserError
from cdm4mi.inference.orientations import MIRRORED, averaged
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Volume
from cdm4mi.models.condition import Condition


def lopsided(cond):
    """Sees the pixels above and to the left, the noise level of each pixel, and the time."""
    kernel = torch.tensor([[3.0, 2.0], [1.0, 0.5]])[None, None]

    def denoise(x_t, t):
        seen = F.conv2d(F.pad(x_t * cond.y, (1, 0, 1, 0)), kernel)
        return seen * cond.relative_level + t.reshape(-1, 1, 1, 1) * cond.sigma.reshape(-1, 1, 1, 1)

    return denoise


@pytest.fixture
def case():
    x, y, level = torch.randn(3, 2, 1, 6, 9, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([3, 5]), Condition(y, torch.tensor([0.1, 0.7]), relative_level=level)


@pytest.mark.parametrize("count, axes", [(2, (-2, -1)), (4, (-1,)), (4, (-2,)), (4, (-2, -1))])
def test_mirror_images_get_mirrored_results(case, count, axes):
    x, t, cond = case
    out = averaged(lopsided, count)(cond)(x, t)
    mirrored = averaged(lopsided, count)(cond.mirrored(axes))(x.flip(axes), t)
    torch.testing.assert_close(mirrored.flip(axes), out)
    assert not torch.allclose(lopsided(cond.mirrored(axes))(x.flip(axes), t).flip(axes), lopsided(cond)(x, t))


def test_one_orientation_is_the_denoiser_itself_and_its_own_are_distinct():
    assert averaged(lopsided, 1) is lopsided
    assert len(set(MIRRORED)) == 4


def test_what_sees_no_direction_stays_as_it_is(case):
    x, t, cond = case

    def pooled(cond):
        return lambda x_t, t: F.avg_pool2d(x_t + cond.y, 3, 1, 1)

    torch.testing.assert_close(averaged(pooled, 4)(cond)(x, t), pooled(cond)(x, t))


@pytest.mark.parametrize("count", [2, 4])
def test_a_restored_volume_is_the_mean_over_mirrored_volumes(tiny, count):
    noisy = np.random.default_rng(0).normal(0, 200, (2, 32, 40)).astype(np.float32)

    def restored(array, **changes):
        restorer = Restorer(tiny, changed(tiny.config.sampling, estimate="mean", tile=64, **changes))
        return restorer.restore(Volume(array, np.eye(4), "CT"), noise=200.0)

    each = [np.flip(restored(np.flip(noisy, axes)).volume.array, axes) for axes in MIRRORED[:count]]
    together = restored(noisy, orientations=count)
    np.testing.assert_allclose(together.volume.array, np.mean(each, axis=0), atol=0.02)
    assert np.abs(each[0] - each[1]).max() > 0.2
    assert together.record.network_calls == count
    assert together.record.settings["orientations"] == count


def test_another_number_is_refused(tiny):
    with pytest.raises(UserError, match="`orientations`: found 3, expected 1, 2 or 4"):
        changed(tiny.config.sampling, orientations=3)
