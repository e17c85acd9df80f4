"""How a device computes a network fastest: the order of its weights in memory, and their number format."""

import pytest
import torch
from awake_network import awake
from torch import nn

from cdm4mi.networks import UNet
from cdm4mi.networks.precision import arrange_for, rounded


def test_a_cpu_has_the_channels_of_a_pixel_side_by_side_and_a_gpu_whole_planes():
    network = nn.Conv2d(4, 8, 3)
    values = network.weight.detach().clone()
    arrange_for(network, torch.device("cpu"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    assert not network.weight.is_contiguous()
    arrange_for(network, torch.device("cuda"))
    assert network.weight.is_contiguous()
    assert torch.equal(network.weight, values)


@pytest.mark.parametrize("norm", ["group", "pixel"])
def test_weights_rounded_once_give_what_autocast_gives(norm):
    # of one level: a CPU adds weights up where a map is upsampled, before they are rounded
    unet = awake(UNet(in_channel=1, channel=32, channel_multiplier=(1,), norm=norm, dropout=0.0)).eval()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    copy = rounded(unet, torch.bfloat16)
    assert copy.down[0].weight.dtype == torch.bfloat16
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 900])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(copy(x, t), unet(x, t))
    for name, value in unet.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])
