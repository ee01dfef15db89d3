"""Networks whose gradients, and sums of gradients along paths, are known in closed form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hand import CONV, wrap
from seglens.core.image import Image
from seglens.core.target import Painted, Target


class Quadratic(nn.Module):
    """Class 1 at a pixel: ½ x · (K ∗ x) with a symmetric K, so that the sum over all pixels is ½ xᵀQx."""

    def __init__(self, channels: int = 1, dims: int = 2, seed: int = 0) -> None:
        """Draw a symmetric kernel."""
        super().__init__()
        self.conv = CONV[dims](channels, channels, 3, padding=1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        kernel = torch.randn(self.conv.weight.shape, generator=generator)
        kernel = kernel + kernel.flip(tuple(range(2, kernel.ndim))).transpose(0, 1)
        self.conv.weight.data.copy_(kernel * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, 2, *space)."""
        half = 0.5 * (x * self.conv(x)).sum(1, keepdim=True)
        return torch.cat([torch.zeros_like(half), half], 1)

    def q(self, x: Tensor) -> Tensor:
        """Qx."""
        return self.conv(x).detach()


class Saturating(nn.Module):
    """Class 1 at every pixel: 1 − relu(1 − x₁ − x₂) of the two channels of that pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, *space) to (N, 2, *space)."""
        score = 1 - F.relu(1 - x.sum(1, keepdim=True))
        return torch.cat([torch.zeros_like(score), score], 1)


class SaturatingTwice(nn.Module):
    """The same function, written as a clamp of two halves that are added one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, *space) to (N, 2, *space)."""
        score = torch.minimum(2 * (0.5 * x[:, :1] + 0.5 * x[:, 1:]), torch.ones_like(x[:, :1]))
        return torch.cat([torch.zeros_like(score), score], 1)


class Normalising(nn.Module):
    """A convolution of contrast that instance norm has evened out, as networks of nnU-Net's kind do it first."""

    def __init__(self) -> None:
        """Weights by a seed."""
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.InstanceNorm2d(6)
        self.last = nn.Conv2d(6, 2, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        self.first.weight.data.mul_(30)  # contrast far above the norm's epsilon, as in a deep network

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *space) to (N, 2, *space)."""
        return self.last(F.relu(self.norm(self.first(x))))


class Sites(nn.Module):
    """Class 1 at every pixel: a ReLU of the pixel's own channels, with a bias; the way to it matters."""

    def __init__(self, channels: int = 1, seed: int = 0) -> None:
        """Weights by a seed."""
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 12, 3, padding=1), nn.Conv2d(12, 2, 1)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, 2, *space)."""
        return self.last(F.relu(self.first(x)))


def everywhere(shape: tuple[int, ...]) -> Target:
    """The sum of class 1 over all pixels."""
    return Target(1, Painted(np.ones(shape, bool)), reduction="sum")


def noise(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> Image:
    """Random values from 0 to 1; the darkest is exactly 0, so that black is zero input."""
    rng = np.random.default_rng(seed)
    data = rng.random((channels, *shape)).astype(np.float32)
    data.flat[0] = 0
    return Image(data, "C" + "ZYX"[-len(shape) :], name="noise")


def model_of(module: nn.Module, channels: int = 1, dims: int = 2):
    """Its two classes."""
    return wrap(module, channels=channels, dims=dims, classes=("nothing", "thing"))


def as_input(image: Image) -> Tensor:
    """What the model gets (1, C, *space)."""
    return torch.from_numpy(image.read(image.kept if "C" in image.kept else "C" + image.kept))[None]


def scored(module: nn.Module, target: Target):
    """The target for a peer: input to one number per sample."""
    mask = torch.from_numpy(target.region.mask)
    return lambda z: (module(z)[:, 1] * mask).flatten(1).sum(1)
