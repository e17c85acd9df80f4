"""More residual blocks for a trained UNet, whose output stays what it is (Chen, Goodfellow and Shlens 2016).

arXiv 1511.05641, section 2.4: a layer that is inserted computes the identity until it is trained. A new residual block
does so from the start, as its last convolution and the output of its attention are zero but for 1e-10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from cdm4mi.networks.unet import UNet


def deepened(weights: Mapping[str, Tensor], blocks: int, unet: UNet) -> dict[str, Tensor]:
    """The weights of ``unet`` that make it compute what a UNet of fewer residual blocks a level computes.

    weights: the ``state_dict`` of that one; blocks: its residual blocks a level, 1 up to those of ``unet``. Inserted
    blocks keep the random first weights that ``unet`` has. Raises ValueError where ``unet`` has fewer, and KeyError
    where a weight is missing.
    """
    more = unet.n_res_blocks - blocks
    if more < 0:
        raise ValueError(f"found {blocks} residual blocks a level, expected at most {unet.n_res_blocks}")
    sources = {f"down.{new}.": old and f"down.{old}." for new, old in _ways_down(unet, blocks)}
    sources |= {f"up.{new}.": old and f"up.{old}." for new, old in _ways_up(unet, blocks)}
    found = {}
    for name, first in unet.state_dict().items():
        here = next((part for part in sources if name.startswith(part)), "")
        source = sources.get(here, "")
        if source is not None:
            found[name] = weights[source + name.removeprefix(here)]
        elif name.endswith("resblocks.skip.weight"):  # on the way up: of what comes from below, and nothing of the skip
            found[name] = torch.eye(*first.shape[:2])[:, :, None, None]
        elif name.endswith("resblocks.skip.bias"):
            found[name] = torch.zeros_like(first)
        else:
            found[name] = first
    return found


def _ways_down(unet: UNet, blocks: int) -> Iterator[tuple[int, str | None]]:
    """Index of each layer on the way down, and of the one that it comes from: None for an inserted block."""
    more, new, old = unet.n_res_blocks - blocks, 0, 0
    for _ in range(unet.levels):
        for is_new in (False, *[False] * blocks, *[True] * more):  # what leads to the level, then its blocks
            yield new, None if is_new else str(old)
            new, old = new + 1, old + (not is_new)


def _ways_up(unet: UNet, blocks: int) -> Iterator[tuple[int, str | None]]:
    """The same for the way up: its first block of a level takes the skip of the last on the way down."""
    more, new, old = unet.n_res_blocks - blocks, 0, 0
    for level in reversed(range(unet.levels)):
        for is_new in (False, *[True] * more, *[False] * blocks, *[False] * (level > 0)):
            yield new, None if is_new else str(old)
            new, old = new + 1, old + (not is_new)
