"""Dead leaves in training patches: how they hide each other, their values, their sizes and their share."""

import numpy as np
import torch

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.dead_leaves import LEAVES, RADIUS, dead_leaves, draw_leaves
from cdm4mi.data.ellipses import Ellipse, layers_of
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.degradation import GaussianNoise

GROUND = Ellipse(0.5, 0.5, (1e6, 1e6), 0.0, 0.15)


def test_a_leaf_hides_what_lies_below_it_and_has_a_value_of_the_image():
    image = torch.linspace(-1, 1, 64 * 64).reshape(1, 1, 64, 64)
    discs = [Ellipse(0.5, column, (10.0, 10.0), 0.0, 0.15) for column in (0.4, 0.6)]
    out = dead_leaves(image, layers_of([[(GROUND, 0.0), (discs[0], 0.5), (discs[1], 1.0)]]))[0, 0]
    assert np.allclose([out[2, 2], out[32, 20], out[32, 32], out[32, 44]], [-1, 0, 1, 1], atol=1e-3)


def test_what_is_laid_is_free_of_the_image_below():
    torch.manual_seed(0)
    images = torch.randn(2, 1, 64, 64).clamp(-1, 1)
    out = dead_leaves(images, layers_of([[], [(GROUND, 0.3)]]))
    assert torch.equal(out[0], images[0])
    torch.testing.assert_close(out[1], images[1].quantile(0.3).expand_as(out[1]))


def test_sizes_and_numbers_are_in_range_and_few_are_large():
    drawn = [draw_leaves(np.random.default_rng(k))[1:] for k in range(300)]
    counts = [len(leaves) for leaves in drawn]
    assert min(counts) == LEAVES[0] and max(counts) <= LEAVES[1] and np.median(counts) < 15
    radii = np.array([min(leaf.ellipse.radii) for leaves in drawn for leaf in leaves])
    assert radii.min() >= RADIUS[0] and radii.max() <= RADIUS[1]
    # density ~ r^-3: the share above r is (r^-2 - 64^-2) / (2^-2 - 64^-2)
    for r in (4.0, 8.0):
        assert abs((radii > r).mean() - (r**-2 - 64.0**-2) / (2.0**-2 - 64.0**-2)) < 0.02


def test_the_share_of_training_patches_that_asked_for_them_has_them():
    ramp = np.tile(np.linspace(-1, 1, 40, dtype=np.float16), (40, 1))
    people = [Patient("a", "CT-a", [ramp], [ramp < 2])]
    data = PairDataset(people, GaussianNoise(variance=0.01), 32, 0, augment=AugmentConfig(leaves=0.5))
    images = [data[i]["x0"][0] for i in range(60)]
    # a ramp varies along one axis only, whichever way it is turned
    changed = [min(float(x0.std(axis).max()) for axis in (0, 1)) > 0.01 or float(x0.std()) == 0 for x0 in images]
    assert 18 <= sum(changed) <= 42
