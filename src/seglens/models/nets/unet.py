"""A plain U-Net: batch norm, max pooling, transposed convolutions, concatenated skips.

Nothing in it looks at the whole image (no instance or group norm, no global pooling, no attention), so one
input pixel influences a bounded neighbourhood of the output. The engine's crops and packing live on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.errors import BadParameter

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_DROP = {2: nn.Dropout2d, 3: nn.Dropout3d}
_UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


class ConvBlock(nn.Sequential):
    """Twice convolution, batch norm, ReLU; then dropout if any: ``(N, in, *space)`` to ``(N, out, *space)``."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, dropout: float) -> None:
        """``dims`` is 2 or 3; ``dropout`` drops whole channels with this probability."""
        super().__init__()
        for number, source in enumerate((in_channels, out_channels), start=1):
            self.add_module(f"conv{number}", _CONV[dims](source, out_channels, 3, padding=1, bias=False))
            self.add_module(f"norm{number}", _NORM[dims](out_channels))
            # Not in place: hooks and taps may keep what comes before.
            self.add_module(f"relu{number}", nn.ReLU())
        if dropout:
            self.add_module("dropout", _DROP[dims](dropout))


class UpBlock(nn.Module):
    """One step up: double the size, join the skip, a :class:`ConvBlock`."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, dropout: float) -> None:
        """``in_channels`` come from below, ``out_channels`` from the skip and go out."""
        super().__init__()
        self.up = _UP[dims](in_channels, out_channels, 2, stride=2)
        self.block = ConvBlock(2 * out_channels, out_channels, dims, dropout)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """``(N, in, *space/2)`` and ``(N, out, *space)`` to ``(N, out, *space)``."""
        joined: Tensor = self.block(torch.cat([skip, self.up(below)], dim=1))
        return joined


class UNet(nn.Module):
    """U-Net for images (``dims=2``) and volumes (``dims=3``).

    Layers to look at: ``encoder.0`` … (finest first), ``bottleneck``, ``decoder.0`` … (coarsest first),
    ``head``. For Grad-CAM the ``bottleneck`` and the last entry of ``decoder`` are the usual choices.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (16, 32, 64, 128),
        dims: int = 2,
        dropout: float = 0.0,
        level: int = 0,
    ) -> None:
        """Build it.

        Args:
            in_channels: channels of the image.
            out_channels: classes, background included.
            features: channels per level, finest first; the last one is the bottleneck.
            dims: 2 or 3 space axes.
            dropout: probability to drop a channel after each block, 0 to below 1.
            level: where the way up ends: 0 at full resolution, 1 at half of it, …; logits are interpolated from there.

        Raises:
            BadParameter: an argument is outside its limits.
        """
        super().__init__()
        _check(in_channels, out_channels, features, dims, dropout, level)
        self.features, self.level = tuple(features), level
        *outer, deepest = self.features
        sources = (in_channels, *outer)
        self.encoder = nn.ModuleList(ConvBlock(a, b, dims, dropout) for a, b in zip(sources, outer, strict=False))
        self.pool = _POOL[dims](2)
        self.bottleneck = ConvBlock(sources[-1], deepest, dims, dropout)
        upward = self.features[level:][::-1]
        self.decoder = nn.ModuleList(UpBlock(a, b, dims, dropout) for a, b in pairwise(upward))
        self.head: nn.Module = _CONV[dims](self.features[level], out_channels, 1)

    @property
    def divisor(self) -> int:
        """Each space axis has to be a multiple of this."""
        return int(2 ** (len(self.features) - 1))

    def body(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *space)`` to the features ``(N, features[level], *s)`` that the head reads."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        # a decoder that ends early leaves the finest skips aside
        for step, skip in zip(self.decoder, reversed(skips), strict=False):
            x = step(x, skip)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *space)`` to logits ``(N, out_channels, *space)``."""
        return self.at_image(self.head(self.body(x)), x)

    def at_image(self, maps: Tensor, x: Tensor) -> Tensor:
        """Maps (N, K, *s) of the level that the decoder ends at, at the size of the image (N, C, *space)."""
        # which it is follows from the level and not from sizes, so that the network can be traced
        return maps if self.level == 0 else enlarged(maps, x.shape[2:])


def resized(maps: Tensor, space: Sequence[int]) -> Tensor:
    """Maps (N, K, *s) at another size (N, K, *space), interpolated; as they are where it is theirs already."""
    if tuple(maps.shape[2:]) == tuple(space):
        return maps
    return enlarged(maps, space)


def enlarged(maps: Tensor, space: Sequence[int]) -> Tensor:
    """Maps (N, K, *s) interpolated at another size (N, K, *space)."""
    return F.interpolate(maps, tuple(space), mode=_LINEAR[maps.ndim - 2], align_corners=False)


def _check(in_channels: int, out_channels: int, features: Sequence[int], dims: int, dropout: float, level: int) -> None:
    if dims not in _CONV:
        raise BadParameter(f"A U-Net was asked for with dims={dims!r}.", fix="Use dims=2 or dims=3.")
    if len(features) < 2 or min(*features, in_channels, out_channels) < 1:
        raise BadParameter(
            f"A U-Net cannot have in_channels={in_channels}, out_channels={out_channels}, features={tuple(features)}.",
            fix="Use at least one channel each and two or more levels, for example features=(16, 32, 64, 128).",
        )
    if not 0 <= level < len(features) - 1:
        raise BadParameter(
            f"A U-Net of {len(features)} levels cannot answer at level={level}.", fix=f"Use 0 to {len(features) - 2}."
        )
    if not 0 <= dropout < 1:
        raise BadParameter(f"dropout={dropout} is not a probability.", fix="Use 0 or more and less than 1.")
