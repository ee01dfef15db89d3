"""A small vision transformer for segmentation after Segmenter: patches, attention, and a token for each class.

Every patch sees every other, so its reach is the whole image. Attention is computed by
``scaled_dot_product_attention``, where the engine reads the matrices (:mod:`seglens.engine.attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.errors import BadParameter

Decoder = Literal["mask", "linear"]

_CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}
_SPREAD = 0.02  # deviation of fresh embeddings of places


class Attention(nn.Module):
    """Every token reads every other, in several heads: ``(N, T, width)`` to ``(N, T, width)``."""

    def __init__(self, width: int, heads: int) -> None:
        """``heads`` divides ``width``."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values from the tokens; the matrix of weights is (N, heads, T, T)."""
        parts: Tensor = self.qkv(tokens).reshape(*tokens.shape[:2], 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention, then two dense layers token by token; each after a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        """``dropout`` drops values of what is added."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, T, width)`` to the same."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens)))
        out: Tensor = tokens + self.dropout(self.dense(self.norm2(tokens)))
        return out


class MapBlock(Block):
    """The same on a map ``(N, width, *grid)`` of patches, so that layers of the encoder can be looked at."""

    def forward(self, patches: Tensor) -> Tensor:
        """``(N, width, *grid)`` to the same."""
        tokens = super().forward(patches.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(patches.shape)


class MaskDecoder(nn.Module):
    """A token for each class joins the patches; how alike a patch and a class are is the class's mask there."""

    def __init__(self, width: int, heads: int, depth: int, classes: int, dropout: float) -> None:
        """``depth`` blocks over patches and classes together."""
        super().__init__()
        # small ones, as for places, would be alike behind the first block, and training would stand still
        self.classes = nn.Parameter(torch.randn(1, classes, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.of_patch = nn.Linear(width, width, bias=False)
        self.of_class = nn.Linear(width, width, bias=False)
        # over the classes, so the logit of one depends on all of them
        self.mask_norm = nn.LayerNorm(classes)
        # its answers are of one length: long enough to be sure from the start
        nn.init.constant_(self.mask_norm.weight, 3.0)

    def forward(self, patches: Tensor) -> Tensor:
        """``(N, width, *grid)`` to ``(N, classes, *grid)``; class tokens stand behind the patches."""
        grid, count = patches.shape[2:], self.classes.shape[1]
        tokens = torch.cat([patches.flatten(2).transpose(1, 2), self.classes.expand(len(patches), -1, -1)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        seen = F.normalize(self.of_patch(tokens[:, :-count]), dim=2)
        sought = F.normalize(self.of_class(tokens[:, -count:]), dim=2)
        masks: Tensor = self.mask_norm(seen @ sought.transpose(1, 2))
        return masks.transpose(1, 2).reshape(len(patches), count, *grid)


class LinearDecoder(nn.Module):
    """One dense layer for each patch by itself."""

    def __init__(self, width: int, classes: int, dims: int) -> None:
        """A layer norm before it, as behind every last block."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = _CONV[dims](width, classes, 1)

    def forward(self, patches: Tensor) -> Tensor:
        """``(N, width, *grid)`` to ``(N, classes, *grid)``."""
        out: Tensor = self.head(self.norm(patches.movedim(1, -1)).movedim(-1, 1))
        return out


class Segmenter(nn.Module):
    """Vision transformer for images (``dims=2``) and volumes (``dims=3``), after Strudel et al. 2021.

    Differs from the paper: small, no class token in the encoder, trained from scratch, and the embedding of places
    is stretched to any grid. Layers to look at: ``patches``, ``encoder.0`` …, ``decoder``. Logits are made for each
    patch and interpolated, so a mask is as fine as the patches are.
    """

    sees_everything = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        patch: int = 8,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        decoder: Decoder = "mask",
        decoder_depth: int = 1,
        dims: int = 2,
        grid: int = 16,
        dropout: float = 0.0,
    ) -> None:
        """Build it.

        Args:
            in_channels: channels of the image.
            out_channels: classes, background included.
            patch: side of a patch in pixels; each becomes one token.
            width: numbers per token.
            depth: blocks of the encoder.
            heads: heads of each attention; a divisor of ``width``.
            decoder: ``mask`` (a token for each class) or ``linear``.
            decoder_depth: blocks of the mask decoder.
            dims: 2 or 3 space axes.
            grid: side of the embedding of places, in patches; other sizes are interpolated from it.
            dropout: probability to drop a value of what a block adds, 0 to below 1.

        Raises:
            BadParameter: an argument is outside its limits.
        """
        super().__init__()
        counts = {"in_channels": in_channels, "patch": patch, "width": width, "depth": depth, "heads": heads}
        _check_choices(dims, decoder, dropout)
        _check_counts({**counts, "decoder_depth": decoder_depth, "grid": grid}, out_channels)
        self.patch = patch
        self.patches = _CONV[dims](in_channels, width, patch, stride=patch)
        self.places = nn.Parameter(torch.randn(1, width, *(grid,) * dims) * _SPREAD)
        self.encoder = nn.ModuleList(MapBlock(width, heads, dropout) for _ in range(depth))
        self.decoder: nn.Module
        if decoder == "mask":
            self.decoder = MaskDecoder(width, heads, decoder_depth, out_channels, dropout)
        else:
            self.decoder = LinearDecoder(width, out_channels, dims)

    @property
    def divisor(self) -> int:
        """Each space axis has to be a multiple of this."""
        return self.patch

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *space)`` to logits ``(N, out_channels, *space)``."""
        mode = _LINEAR[x.ndim - 2]
        patches = self.patches(x)
        grid = patches.shape[2:]
        places: Tensor = self.places
        if places.shape[2:] != grid:
            places = F.interpolate(places, grid, mode=mode, align_corners=False)
        patches = patches + places
        for block in self.encoder:
            patches = block(patches)
        return F.interpolate(self.decoder(patches), x.shape[2:], mode=mode, align_corners=False)


def _check_choices(dims: int, decoder: str, dropout: float) -> None:
    if dims not in _CONV:
        raise BadParameter(f"A Segmenter was asked for with dims={dims!r}.", fix="Use dims=2 or dims=3.")
    if decoder not in ("mask", "linear"):
        raise BadParameter(f"A Segmenter has no decoder {decoder!r}.", fix="Use mask or linear.")
    if not 0 <= dropout < 1:
        raise BadParameter(f"dropout={dropout} is not a probability.", fix="Use 0 or more and less than 1.")


def _check_counts(counts: Mapping[str, int], classes: int) -> None:
    if min(counts.values()) < 1 or classes < 2:
        told = ", ".join(f"{name}={value}" for name, value in {**counts, "out_channels": classes}.items())
        raise BadParameter(
            f"A Segmenter cannot have {told}.",
            fix="Use out_channels=2 or more (background is a class), and 1 or more of everything else.",
        )
    if counts["width"] % counts["heads"]:
        raise BadParameter(
            f"width={counts['width']} cannot be shared by heads={counts['heads']}.",
            fix="Use a width that is a multiple of the heads.",
        )
