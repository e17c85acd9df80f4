"""How a device computes a network fastest: the order of its weights in memory."""

import torch
from torch import nn

from cdm4mi.networks.precision import arrange_for


def test_a_cpu_has_the_channels_of_a_pixel_side_by_side_and_a_gpu_whole_planes():
    network = nn.Conv2d(4, 8, 3)
    values = network.weight.detach().clone()
    arrange_for(network, torch.device("cpu"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert not network.weight.is_contiguous()
    arrange_for(network, torch.device("cuda"))
    assert network.weight.is_contiguous()
    assert torch.equal(network.weight, values)
