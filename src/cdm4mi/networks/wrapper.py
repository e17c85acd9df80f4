"""DiffusionWrapper: passes a condition to the UNet by one of the keys concat, crossattn, adm, hybrid, none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cdm4mi.errors import UserError
from cdm4mi.networks.encoders import TokenEncoder, VectorEncoder
from cdm4mi.networks.plain import PlainNetwork
from cdm4mi.networks.unet import UNet

KEYS = ("concat", "crossattn", "adm", "hybrid", "none")
_KIND = {4: "image", 3: "tokens", 2: "vector"}


@dataclass(frozen=True)
class NetworkCondition:
    """The condition of a network, its inputs beside x_t and t.

    image: (N, C, H, W) on [-1, 1]; vector: (N, D), of acquisition numbers, say; tokens: (N, L, D) for cross-attention.
    """

    image: Tensor | None = None
    vector: Tensor | None = None
    tokens: Tensor | None = None


class DiffusionWrapper(nn.Module):
    """A UNet (``diffusion_model``) and the way its condition enters: ``wrapper(x, t, cond)``.

    The condition is a tensor, or a ``NetworkCondition`` of several:

    concat: an image (N, condition_channel, H, W) of x's size, joined to x along the channels.
    crossattn: tokens (N, L, context_dim) that the blocks with attention attend to, or an image of any size of which
    an encoder makes them.
    adm: a vector (N, vector_dim) that modulates the norms, or an image of any size of which an encoder makes one.
    hybrid: an image, as for concat and for crossattn (``NetworkCondition(image, tokens=...)``: other tokens).
    none: not used.

    image_channel: channels of x; condition_channel: channels of the conditioning image, or None for crossattn and adm
    without an encoder, which then take no image; condition_parts: a description of these channels, for messages;
    acquisition_size: for adm, the length of a vector of acquisition numbers in place of an image; cond: a module that
    turns the condition that is passed into one of the above (an embedding of labels, for example), is trained and
    averaged with the network, and replaces the encoder of crossattn and adm. Raises UserError when the key does not
    fit the network, naming both.
    """

    def __init__(
        self,
        unet: UNet | PlainNetwork,
        conditioning_key: str,
        *,
        image_channel: int = 1,
        condition_channel: int | None = 1,
        acquisition_size: int | None = None,
        condition_parts: str = "",
        cond: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check_fit(unet, conditioning_key, image_channel, condition_channel, condition_parts)
        self.conditioning_key = conditioning_key
        self.image_channel, self.condition_channel = image_channel, condition_channel
        self.diffusion_model = unet
        self.cond = cond
        # where these know no image, the tokens or the vector come as such
        encoded = condition_channel if cond is None or conditioning_key == "hybrid" else None
        self.token_encoder = (
            TokenEncoder(encoded, unet.context_dim)
            if conditioning_key in ("crossattn", "hybrid") and unet.context_dim is not None and encoded is not None
            else None
        )
        self.vector_encoder = (
            VectorEncoder(encoded, unet.vector_dim)
            if conditioning_key == "adm"
            and unet.vector_dim is not None
            and encoded is not None
            and acquisition_size is None
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

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The network's output, of the shape of x (N, image_channel, H, W), for times t (N,) and a condition.

        Raises UserError for a condition that is missing or has another shape.
        """
        self._check(x, "x", (x.shape[0], self.image_channel, "H", "W"))
        out: Tensor
        if self.conditioning_key == "none":
            out = self.diffusion_model(x, t)
            return out
        given = self._condition(cond)
        context = vector = None
        if self.conditioning_key in ("crossattn", "hybrid"):
            context = self._tokens(given, x.shape[0])
        if self.conditioning_key == "adm":
            vector = self._vector(given, x.shape[0])
        if self.conditioning_key in ("concat", "hybrid"):
            x = torch.cat([x, self._image(given, x.shape[0], x.shape[2:])], dim=1)
        out = self.diffusion_model(x, t, context=context, vector=vector)
        return out

    def _condition(self, cond: Any) -> NetworkCondition:
        """The condition as an image, tokens or a vector, by its number of dimensions."""
        if self.cond is not None and cond is not None:
            cond = self.cond(cond)
        if cond is None:
            return NetworkCondition()
        if isinstance(cond, NetworkCondition):
            return cond
        if not isinstance(cond, Tensor) or cond.ndim not in _KIND:
            found = f"shape {tuple(cond.shape)}" if isinstance(cond, Tensor) else f"a {type(cond).__name__}"
            raise UserError(
                f"condition: found {found}, expected an image (N, C, H, W), tokens (N, L, D) or a vector (N, D)"
            )
        return NetworkCondition(**{_KIND[cond.ndim]: cond})

    def _image(self, given: NetworkCondition, n: int, size: Sequence[int | str] = ("H", "W")) -> Tensor:
        image = self._need(given.image, "an image", given)
        assert self.condition_channel is not None
        return self._check(image, "the conditioning image", (n, self.condition_channel, *size))

    def _tokens(self, given: NetworkCondition, n: int) -> Tensor:
        if given.tokens is None and given.image is not None and self.token_encoder is not None:
            encoded: Tensor = self.token_encoder(self._image(given, n))
            return encoded
        assert self.diffusion_model.context_dim is not None
        wanted = "tokens" if self.token_encoder is None else "an image or tokens"
        tokens = self._need(given.tokens, wanted, given)
        return self._check(tokens, "the conditioning tokens", (n, "L", self.diffusion_model.context_dim))

    def _vector(self, given: NetworkCondition, n: int) -> Tensor:
        if given.vector is None and given.image is not None and self.vector_encoder is not None:
            encoded: Tensor = self.vector_encoder(self._image(given, n))
            return encoded
        assert self.diffusion_model.vector_dim is not None
        wanted = "a vector" if self.vector_encoder is None else "an image or a vector"
        vector = self._need(given.vector, wanted, given)
        return self._check(vector, "the conditioning vector", (n, self.diffusion_model.vector_dim))

    def _need(self, value: Tensor | None, wanted: str, given: NetworkCondition) -> Tensor:
        if value is None:
            found = [name for name in _KIND.values() if getattr(given, name) is not None]
            present = " and ".join(found) or "no condition"
            raise UserError(f"conditioning_key {self.conditioning_key}: found {present}, expected {wanted}")
        return value

    def _check(self, value: Tensor, name: str, expected: Sequence[int | str]) -> Tensor:
        """The value, if its shape is as expected, in which letters stand for any number; else UserError."""
        fits = [isinstance(want, str) or want == size for want, size in zip(expected, value.shape, strict=False)]
        if len(expected) != value.ndim or not all(fits):
            found, wanted = tuple(value.shape), ", ".join(map(str, expected))
            raise UserError(f"conditioning_key {self.conditioning_key}: {name}: found {found}, expected ({wanted})")
        return value


def _check_fit(
    unet: UNet | PlainNetwork, key: str, image_channel: int, condition_channel: int | None, condition_parts: str
) -> None:
    if key not in KEYS:
        raise UserError(f"conditioning_key: found {key!r}, expected one of {', '.join(KEYS)}")
    joined = key in ("concat", "hybrid")
    if joined and condition_channel is None:
        raise UserError(f"conditioning_key {key}: found condition_channel None, expected the channels of an image")
    expected = image_channel + (condition_channel or 0 if joined else 0)
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
