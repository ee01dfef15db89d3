"""A U-Net whose logits are sums over prototypes: how alike a pixel's features and each prototype are, times a weight.

After ProtoSeg: the features go through a small add-on into 0…1; a prototype is a vector among them, after the push
that of a pixel of a training image. The prototype layer (:class:`PrototypeHead`) is all that decides behind it, and
what follows it is interpolation, which is linear. So a logit is the sum of its prototypes' shares at every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.errors import BadParameter
from seglens.models.device import finest
from seglens.models.nets.unet import _CONV, UNet

EPS = 1e-4  # the similarity of a pixel that is the prototype itself is log(1 / EPS) = 9.21
OWN, OTHER = 1.0, -0.5  # what a prototype counts for its own class and for the others, before training
_POINTWISE = {2: F.conv2d, 3: F.conv3d}


class Similarity(nn.Module):
    """How alike features and prototypes are: log((d + 1) / (d + EPS)) with d the squared distance."""

    def __init__(self, count: int, width: int) -> None:
        """``count`` prototypes of ``width`` numbers, drawn from 0…1, where the features are."""
        super().__init__()
        self.vectors = nn.Parameter(torch.rand(count, width))

    def distances(self, features: Tensor) -> Tensor:
        """Squared distances ``(N, P, *s)`` of features ``(N, width, *s)``.

        Outside of training in double precision, where there is such: in single precision |z|² - 2z·p + |p|² is off by
        some 1e-6 where it should be zero, and the logarithm of ``EPS`` would show it.
        """
        dtype = torch.float32 if self.training else finest(features.device)
        with torch.autocast(features.device.type, enabled=False):
            z, p = features.to(dtype), self.vectors.to(dtype)
            kernel = (-2 * p).reshape(*p.shape, *[1] * (z.ndim - 2))
            cross = _POINTWISE[z.ndim - 2](z, kernel, p.square().sum(1))
            return (cross + z.square().sum(1, keepdim=True)).clamp(min=0)

    def of(self, distances: Tensor) -> Tensor:
        """Similarities of squared distances, of any shape."""
        return ((distances + 1) / (distances + EPS)).log()

    def forward(self, features: Tensor) -> Tensor:
        """``(N, width, *s)`` to ``(N, P, *s)``, from 0 (far) to 9.21 (the prototype itself)."""
        return self.of(self.distances(features)).to(features.dtype)


class PrototypeHead(nn.Module):
    """Logits from prototypes, without a bias: ``(N, D, *s)`` to ``(N, K, *s)``.

    Attributes:
        owner: (P,) the class that each prototype is of.
        active: (P,) bool; what is not active counts nothing, and keeps its place and number.
        weight: (K, P) what the similarity with each prototype counts for each class.
        provenance: where each prototype comes from, as plain data with a crop; ``None`` before the push. It is no part
            of the weights: a model folder has it in ``prototypes.json``.
    """

    owner: Tensor
    active: Tensor

    def __init__(self, width: int, classes: int, owners: Sequence[int]) -> None:
        """``owners`` has the class of each prototype, ``width`` is D."""
        super().__init__()
        self.similarity = Similarity(len(owners), width)
        self.register_buffer("owner", torch.tensor(list(owners), dtype=torch.long))
        self.register_buffer("active", torch.ones(len(owners), dtype=torch.bool))
        own = F.one_hot(self.owner, classes).T.float()
        self.weight = nn.Parameter(own * (OWN - OTHER) + OTHER)
        self.provenance: list[dict[str, Any]] | None = None

    @property
    def prototypes(self) -> nn.Parameter:
        """(P, D)."""
        return self.similarity.vectors

    @property
    def out_channels(self) -> int:
        """Number of classes."""
        return len(self.weight)

    def counting(self) -> Tensor:
        """The weights (K, P) as they count: zero where a prototype is not active."""
        return self.weight * self.active

    def mix(self, similarities: Tensor) -> Tensor:
        """``(N, P, *s)`` to logits ``(N, K, *s)``."""
        weight = self.counting().reshape(*self.weight.shape, *[1] * (similarities.ndim - 2))
        return _POINTWISE[similarities.ndim - 2](similarities, weight.to(similarities.dtype))

    def forward(self, features: Tensor) -> Tensor:
        """``(N, D, *s)`` to ``(N, K, *s)``."""
        similarities: Tensor = self.similarity(features)
        return self.mix(similarities)


class ProtoUNet(UNet):
    """U-Net with a prototype layer, for images (``dims=2``) and volumes (``dims=3``), after Sacha et al. 2023.

    Differs from the paper: a small U-Net that is trained from scratch instead of a DeepLab. Layers to look at:
    those of the U-Net, ``addon`` (the features that are compared) and ``head.similarity`` (one channel a prototype).
    """

    head: PrototypeHead

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (16, 32, 64, 128),
        dims: int = 2,
        dropout: float = 0.0,
        level: int = 1,
        width: int = 64,
        per_class: int = 5,
        owners: Sequence[int] | None = None,
    ) -> None:
        """Build it.

        Args:
            in_channels, out_channels, features, dims, dropout, level: see :class:`~seglens.models.nets.unet.UNet`.
            width: numbers per prototype.
            per_class: prototypes of each class.
            owners: the class of each prototype, where they are not alike in number; then ``per_class`` is not read.

        Raises:
            BadParameter: an argument is outside its limits.
        """
        super().__init__(in_channels, out_channels, features, dims, dropout, level)
        owned = [c for c in range(out_channels) for _ in range(per_class)] if owners is None else list(owners)
        _check(width, owned, out_channels)
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "features": list(features),
            "dims": dims,
            "dropout": dropout,
            "level": level,
            "width": width,
            "owners": owned,
        }
        conv, source = _CONV[dims], self.features[level]
        self.addon = nn.Sequential(conv(source, width, 1), nn.ReLU(), conv(width, width, 1), nn.Sigmoid())
        self.head = PrototypeHead(width, out_channels, owned)

    def compared(self, x: Tensor) -> Tensor:
        """The features that are compared with prototypes: ``(N, in_channels, *space)`` to ``(N, width, *s)``."""
        features: Tensor = self.addon(self.body(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *space)`` to logits ``(N, out_channels, *space)``."""
        return self.at_image(self.head(self.compared(x)), x)


def _check(width: int, owners: Sequence[int], classes: int) -> None:
    if width < 1 or not owners:
        raise BadParameter(
            f"A prototype layer cannot have width={width} and {len(owners)} prototypes.",
            fix="Use width=1 or more, and at least one prototype per class.",
        )
    if not all(0 <= owner < classes for owner in owners):
        raise BadParameter(
            f"A prototype is said to be of class {max(owners, key=abs)}, and there are {classes} classes.",
            fix=f"Give the owners as numbers from 0 to {classes - 1}.",
        )
