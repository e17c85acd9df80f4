"""Keyed noise: SplitMix64, uniform and normal, the same for an image whatever else is in its batch."""

import pytest
import torch

from cdm4mi.diffusion.noise import KeyedNoise

ZEROS = KeyedNoise(torch.zeros(1, dtype=torch.int64))


def test_the_bits_are_those_of_the_published_generator():
    """The first numbers of SplitMix64 with the seed 0, as in the reference implementation by Vigna."""
    bits = [int(b) % 2**64 for b in ZEROS._bits(3, 0)[0]]
    assert bits == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_numbers_are_normal_and_uniform():
    random = KeyedNoise.of(3, index=torch.arange(64))
    normal, uniform = random.normal(64, 65).double(), random.uniform(64, 65).double()
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        assert float((normal**power).mean()) == pytest.approx(moment, abs=5 * (96 / normal.numel()) ** 0.5)
    assert 4.2 < float(normal.abs().max()) < 6
    shares = torch.histc(uniform, 16, 0, 1) / uniform.numel()
    assert float((shares - 1 / 16).abs().max()) < 5 * (1 / 16 / uniform.numel()) ** 0.5
    assert float(uniform.min()) >= 0 and float(uniform.max()) < 1


def test_images_streams_and_pixels_are_independent():
    numbers = KeyedNoise.of(3, index=torch.arange(8))
    others = KeyedNoise.of(4, index=torch.arange(8))
    rows = torch.cat([numbers.normal(4096), numbers.normal(4096, stream=1), others.normal(4096)])
    rows = torch.cat([rows, rows.roll(1, 1)])
    found = torch.corrcoef(rows) - torch.eye(len(rows))
    assert float(found.abs().max()) < 5.5 / 4096**0.5


def test_an_image_has_its_noise_in_any_batch():
    every = KeyedNoise.of(3, 1, index=torch.arange(10)).normal(1, 7, 9)
    some = KeyedNoise.of(3, 1, index=torch.tensor([8, 2])).normal(1, 7, 9)
    assert torch.equal(some, every[[8, 2]])
    assert torch.equal(KeyedNoise.of(3, 1, index=torch.arange(10))[torch.tensor([4])].normal(1, 7, 9), every[[4]])
