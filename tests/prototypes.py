"""Prototype networks of known prototypes: for the tests of prototypes and of what goes through all methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hand import CONV, Constant, Context, Deep, dropped
from seglens.models.nets.proto_unet import PrototypeHead, ProtoUNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from


class PlantedPrototypes(Context):
    """:class:`Context` by prototypes: background, a healthy cell, and the two sorts of infected pixel there are.

    Features are how empty a pixel is and how much marker there is around, both 0…1, and a third that is always 0.
    Prototype 3 is a cell with the marker around; prototype 4 is what no pixel is like.
    """

    def __init__(self, reach: int = 14, dims: int = 2) -> None:
        """Wire it."""
        super().__init__(reach, dims)
        self.head = PrototypeHead(3, 3, [0, 1, 2, 2])
        vectors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
        with torch.no_grad():
            self.head.similarity.vectors.copy_(vectors)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *space) to (N, 3, *space)."""
        seen = dropped(self, F.relu(self.features(x)))
        around = (self.around(seen[:, :1]) * 0.4).clamp(max=1)
        return self.head(torch.cat([(8 * seen[:, 1:2]).clamp(max=1), around, torch.zeros_like(around)], 1))


class DeepPrototypes(Deep):
    """:class:`Deep` with prototypes at half the resolution."""

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2, seed: int = 0) -> None:
        """Draw the weights."""
        super().__init__(channels, classes, dims, seed)
        self.pool = nn.AvgPool2d(2) if dims == 2 else nn.AvgPool3d(2)
        generator = torch.Generator().manual_seed(seed)
        self.head = PrototypeHead(3, classes, [c for c in range(classes) for _ in range(2)])
        with torch.no_grad():
            for parameter in (self.head.similarity.vectors, self.head.weight):
                parameter.copy_(torch.rand(parameter.shape, generator=generator))

    divisor = 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, K, *space)."""
        features = self.pool(torch.sigmoid(self.mix(dropped(self, F.relu(self.features(x))))))
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        return F.interpolate(self.head(features), x.shape[2:], mode=mode, align_corners=False)


class ConstantPrototypes(Constant):
    """:class:`Constant` with prototypes: every pixel is the second prototype, which is of class 1."""

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2) -> None:
        """Make the unused layer, and a head that sees nothing but ones."""
        super().__init__(channels, classes, dims)
        self.features = CONV[dims](channels, 4, 3, padding=1)
        self.head = PrototypeHead(1, classes, [0, 1])
        with torch.no_grad():
            self.head.similarity.vectors.copy_(torch.tensor([[0.0], [1.0]]))


def tiny(seed: int = 0, classes: int = 2, channels: int = 1, dims: int = 2, **more: object) -> SegmentationModel:
    """A small :class:`ProtoUNet` of random weights as a model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ProtoUNet(channels, classes, [4, 8, 8], dims=dims, width=6, per_class=2, **more).eval()  # type: ignore[arg-type]
    axes, names = "ZYX"[-dims:], ("background", "cell", "other")[:classes]
    named = tuple(f"channel {c}" for c in range(channels))
    spec = ModelSpec("tiny", axes, named, classes_from(names), normalisation=Normalisation("none"), divisor=net.divisor)
    return SegmentationModel(net, spec)
