"""The Rosinality UNet, its blocks, and the wrapper that conditions it."""

from cdm4mi.networks.attention import SelfAttention
from cdm4mi.networks.blocks import ResBlock, ResBlockWithAttention, TimeEmbedding
from cdm4mi.networks.unet import UNet
from cdm4mi.networks.wrapper import DiffusionWrapper, NetworkCondition

__all__ = [
    "DiffusionWrapper",
    "NetworkCondition",
    "ResBlock",
    "ResBlockWithAttention",
    "SelfAttention",
    "TimeEmbedding",
    "UNet",
]
