"""DiffusionWrapper: brings a condition into the UNet by one of the keys concat, crossattn, adm, hybrid, none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdm4mi.errors import UserError
from cdm4mi.networks.encoders import TokenEncoder, VectorEncoder
from cdm4mi.networks.plain import PlainNetwork
from cdm4mi.networks.unet import UNet

KEYS = ("concat", "crossattn", "adm", "hybrid", "none")


@dataclass(frozen=True)
class Condition:
    """What the network is told beside x_t: an image (N, C, H, W) on [-1, 1], a vector (N, D) of acquisition numbers."""

    image: Tensor | None = None
    vector: Tensor | None = None


class DiffusionWrapper(nn.Module):
    """A UNet (``diffusion_model``) and the way its condition enters.

    concat: the image is joined to x_t along the channels. crossattn: an encoder makes tokens of the image. adm: an
    encoder makes a vector of the image, or the vector is ``acquisition_size`` given numbers; it modulates the norms.
    hybrid: concat and crossattn. none: the condition is not used.

    image_channel, condition_channel: channels of x_t and of the conditioning image; condition_parts: what the latter
    are, for messages. Raises UserError when the key does
    not fit the network, with both sides named.
    """

    def __init__(
        self,
        unet: UNet | PlainNetwork,
        conditioning_key: str,
        *,
        image_channel: int = 1,
        condition_channel: int = 1,
        acquisition_size: int | None = None,
        condition_parts: str = "",
    ) -> None:
        super().__init__()
        _check_fit(unet, conditioning_key, image_channel, condition_channel, condition_parts)
        self.conditioning_key = conditioning_key
        self.diffusion_model = unet
        self.token_encoder = (
            TokenEncoder(condition_channel, unet.context_dim)
            if conditioning_key in ("crossattn", "hybrid") and unet.context_dim is not None
            else None
        )
        self.vector_encoder = (
            VectorEncoder(condition_channel, unet.vector_dim)
            if conditioning_key == "adm" and unet.vector_dim is not None and acquisition_size is None
            else None
        )
        if acquisition_size is not None and conditioning_key != "adm":
            raise UserError(
                f"conditioning_key {conditioning_key}: found {acquisition_size} acquisition numbers, expected "
                "conditioning_key adm (no other key uses them)"
            )
        if acquisition_size is not None and acquisition_size != unet.vector_dim:
            raise UserError(
                f"conditioning_key adm: found {acquisition_size} acquisition numbers and a UNet with vector_dim "
                f"{unet.vector_dim}, expected the same"
            )

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """x (N, image_channel, H, W) and times t (N,) to the network's output, the shape of x."""
        cond = cond or Condition()
        context = vector = None
        if self.conditioning_key in ("concat", "hybrid"):
            x = torch.cat([x, self._need(cond.image, "image")], dim=1)
        if self.token_encoder is not None:
            context = self.token_encoder(self._need(cond.image, "image"))
        if self.conditioning_key == "adm":
            if self.vector_encoder is not None:
                vector = self.vector_encoder(self._need(cond.image, "image"))
            else:
                vector = self._need(cond.vector, "vector")
        return self.diffusion_model(x, t, context=context, vector=vector)

    def _need(self, value: Tensor | None, kind: str) -> Tensor:
        if value is None:
            raise ValueError(f"conditioning_key {self.conditioning_key} needs a conditioning {kind}, found none")
        return value


def _check_fit(
    unet: UNet | PlainNetwork, key: str, image_channel: int, condition_channel: int, condition_parts: str
) -> None:
    if key not in KEYS:
        raise UserError(f"conditioning_key: found {key!r}, expected one of {', '.join(KEYS)}")
    joined = key in ("concat", "hybrid")
    expected = image_channel + (condition_channel if joined else 0)
    if unet.in_channel != expected:
        parts = f"{image_channel} of the image" + (
            f" + {condition_channel} of the condition{condition_parts}" if joined else ""
        )
        raise UserError(
            f"conditioning_key {key} with a UNet of in_channel {unet.in_channel}: expected {expected} ({parts})"
        )
    if unet.out_channel != image_channel:
        raise UserError(f"unet out_channel {unet.out_channel}: expected {image_channel}, the channels of the image")
    crossed = key in ("crossattn", "hybrid")
    if crossed != (unet.context_dim is not None):
        want = "a context_dim (a multiple of 32, say 128)" if crossed else "no context_dim"
        raise UserError(f"conditioning_key {key} with a UNet of context_dim {unet.context_dim}: expected {want}")
    if crossed and unet.context_dim is not None and unet.context_dim % 32:
        raise UserError(f"unet context_dim {unet.context_dim}: expected a multiple of 32")
    if (key == "adm") != (unet.vector_dim is not None):
        want = "a vector_dim (say 128)" if key == "adm" else "no vector_dim"
        raise UserError(f"conditioning_key {key} with a UNet of vector_dim {unet.vector_dim}: expected {want}")
    if key == "adm" and not unet.use_affine_time:
        raise UserError(
            "conditioning_key adm with a UNet of use_affine_time false: expected true (the vector modulates the norms)"
        )
