"""A mixture draws one part for each image, by weight, among those for its modality."""

from collections import Counter

import pytest
import torch

from cdm4mi.config import parse_config
from cdm4mi.degradation import Frame
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError

CT, MR, PT = (Frame(-1000.0 if m == "CT" else 0.0, 1000.0, m, (1.0, 1.0)) for m in ("CT", "MR", "PT"))
PARTS = [
    {"weight": 1, "noise": {"type": "gaussian", "variance": [0.01, 0.04]}},
    {"weight": 2, "modality": "CT", "noise": {"type": "coloured", "spectrum": "ct_kernel", "variance": [0.0004, 0.25]}},
    {"weight": 3, "noise": {"type": "rician", "percent": 5}},
    {"weight": 4, "modality": "MR", "noise": {"type": "coloured", "spectrum": "zero_filled", "variance": 0.01}},
]


def config(parts):
    return parse_config({"data": {"noise": {"type": "mixture", "parts": parts}}}).data.noise


@pytest.mark.parametrize(
    ("frame", "shares"),
    [(CT, {"gaussian": 1 / 3, "coloured": 2 / 3}), (MR, {"gaussian": 1 / 8, "rician": 3 / 8, "coloured": 4 / 8})],
)
def test_parts_have_their_share_of_the_images_that_they_are_for(frame, shares):
    mixture, count = config(PARTS), 2000
    found = Counter(mixture.chosen(mixture.draw(generator(3, i)), frame)[0].type for i in range(count))
    assert set(found) == set(shares)
    for name, share in shares.items():
        assert found[name] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def test_image_level_and_correlation_are_those_of_the_part():
    mixture, x0 = config(PARTS), torch.zeros(1, 32, 32)
    for i in range(20):
        gen = generator(i)
        parameter = mixture.draw(gen)
        state = gen.get_state()
        part, its = mixture.chosen(parameter, MR)
        y = mixture.apply(x0, parameter, gen, MR)
        gen.set_state(state)
        assert torch.equal(y, part.apply(x0, its, gen, MR))
        assert mixture.level(x0, y, parameter, MR) == part.level(x0, y, its, MR)
        assert mixture.correlations(x0, y, parameter, MR) == part.correlations(x0, y, its, MR)


def test_a_modality_that_no_part_is_for_is_refused():
    only = config(PARTS[1:2])
    only.check(CT)
    with pytest.raises(UserError, match="noise mixture: found a PT scan, expected a part"):
        only.check(PT)
    with pytest.raises(UserError, match=r"data\.noise\.parts"):
        config([])


def test_the_stated_levels_are_those_of_all_parts_together():
    assert config(PARTS).sigma_range(CT) == pytest.approx((0.02, 0.5))
    assert config(PARTS).sigma_range(MR) == pytest.approx((0.1, 0.2))
    assert config(PARTS[:2]).sigma_range() == pytest.approx((0.02, 0.5))
    assert config([*PARTS, {"noise": {"type": "speckle"}}]).sigma_range(CT) is None


def test_whole_slices_are_needed_where_a_part_needs_them():
    assert not config(PARTS).whole_slice
    assert config([*PARTS, {"noise": {"type": "undersampled"}}]).whole_slice
