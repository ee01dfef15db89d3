"""A U-Net that answers as each of several annotators would: a kernel that all share, and what each adds to it.

After TAX (the paper's abstract was read; this is our formulation). Beside the kernels there is a bank of prototypes, so
many for each annotator and class: vectors among the features that the kernels read, after the training those of pixels
of training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.errors import BadParameter
from seglens.models.nets.unet import _CONV, UNet


class AnnotatorHead(nn.Module):
    """The shared answer of several annotators, and that of each: kernels of one pixel on features (N, D, *s).

    Attributes:
        names: of the R annotators.
        shared: the kernel W₀, D to K classes.
        weight, bias: (R, K, D) and (R, K) of what each adds; they count less their mean over annotators, so that the
            shared kernel is exactly the mean of all.
        bank: (R, K, M, D) prototypes.
        provenance: the pixels that prototypes are, as plain data; ``None`` where nothing is known yet. It is no part of
            the weights: a model folder has it in ``annotators.json``.
    """

    def __init__(self, width: int, classes: int, names: Sequence[str], prototypes: int = 3, dims: int = 2) -> None:
        """``width`` is D, ``prototypes`` is M.

        Raises:
            BadParameter: fewer than two annotators, two of one name, or no prototypes.
        """
        super().__init__()
        _check(names, prototypes)
        self.names = tuple(names)
        self.shared = _CONV[dims](width, classes, 1)
        self.weight = nn.Parameter(torch.zeros(len(names), classes, width))
        self.bias = nn.Parameter(torch.zeros(len(names), classes))
        self.bank = nn.Parameter(torch.rand(len(names), classes, prototypes, width))
        self.provenance: list[dict[str, Any]] | None = None

    @property
    def out_channels(self) -> int:
        """Number of classes."""
        return int(self.weight.shape[1])

    def own(self) -> tuple[Tensor, Tensor]:
        """What each annotator adds to the shared kernel: (R, K, D) and (R, K), both 0 on average."""
        return self.weight - self.weight.mean(0), self.bias - self.bias.mean(0)

    def sizes(self) -> Tensor:
        """(R,) how much each annotator adds: the norm of the own kernel and bias."""
        weight, bias = self.own()
        return (weight.detach().square().sum((1, 2)) + bias.detach().square().sum(1)).sqrt()

    def forward(self, features: Tensor) -> Tensor:
        """``(N, D, *s)`` to the logits ``(N, K, *s)`` of the mean annotator."""
        logits: Tensor = self.shared(features)
        return logits

    def opinions(self, features: Tensor) -> Tensor:
        """``(N, D, *s)`` to the logits ``(N, R, K, *s)`` of each annotator."""
        weight, bias = self.own()
        added = torch.einsum("nd...,rkd->nrk...", features, weight)
        tail = [1] * (features.ndim - 2)
        mean = self.forward(features)[:, None]
        return mean + added + bias.reshape(1, *bias.shape, *tail)

    def distances(self, features: Tensor, label: int | None = None) -> Tensor:
        """Squared distances of features to prototypes: ``(N, D, *s)`` to ``(N, R, K, M, *s)``.

        Args:
            features: (N, D, *s).
            label: of this class's prototypes alone; then K is 1.
        """
        bank = self.bank if label is None else self.bank[:, label : label + 1]
        cross = torch.einsum("nd...,rkmd->nrkm...", features, bank)
        tail = [1] * (features.ndim - 2)
        own = bank.square().sum(-1).reshape(1, *bank.shape[:-1], *tail)
        return (features.square().sum(1)[:, None, None, None] - 2 * cross + own).clamp(min=0)


class AnnotatorUNet(UNet):
    """U-Net with an :class:`AnnotatorHead`, for images (``dims=2``) and volumes (``dims=3``).

    Layers to look at: those of the U-Net, and ``head.shared``.
    """

    head: AnnotatorHead

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (16, 32, 64, 128),
        dims: int = 2,
        dropout: float = 0.0,
        annotators: Sequence[str] = ("first", "second"),
        prototypes: int = 3,
    ) -> None:
        """Build it.

        Args:
            in_channels, out_channels, features, dims, dropout: see :class:`~seglens.models.nets.unet.UNet`.
            annotators: their names.
            prototypes: of each annotator and class.

        Raises:
            BadParameter: an argument is outside its limits.
        """
        super().__init__(in_channels, out_channels, features, dims, dropout)
        self.head = AnnotatorHead(self.features[0], out_channels, annotators, prototypes, dims)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *space)`` to the logits ``(N, out_channels, *space)`` of the mean annotator."""
        return self.at_image(self.head(self.body(x)), x)


def _check(names: Sequence[str], prototypes: int) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise BadParameter(
            f"Several annotators were to be told apart, and they are {', '.join(names) or 'none'}.",
            fix="Give two or more of different names: a folder of masks for each.",
        )
    if prototypes < 1:
        raise BadParameter(f"prototypes={prototypes} for each annotator and class.", fix="Use 1 or more.")
