"""Hand-wired networks whose evidence is known, and the images that go with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from

CONV = {2: nn.Conv2d, 3: nn.Conv3d}


def spec(
    channels: int = 1, classes: tuple[str, ...] = ("background", "cell"), dims: int = 2, **more: object
) -> ModelSpec:
    """A plain description: no normalisation, so that input equals intensity."""
    names = tuple(f"channel {i}" for i in range(channels))
    axes = "YX" if dims == 2 else "ZYX"
    more.setdefault("normalisation", Normalisation("none"))
    return ModelSpec("hand", axes, names, classes_from(classes), **more)  # type: ignore[arg-type]


def wrap(module: nn.Module, **kwargs: object) -> SegmentationModel:
    """A model around a module, in eval mode."""
    return SegmentationModel(module.eval(), spec(**kwargs))  # type: ignore[arg-type]


class Linear(nn.Module):
    """One convolution with fixed random weights: every attribution is known in closed form."""

    def __init__(self, channels: int = 2, classes: int = 3, width: int = 5, dims: int = 2, seed: int = 0) -> None:
        """Fix the weights by the seed."""
        super().__init__()
        self.conv = CONV[dims](channels, classes, width, padding=width // 2)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape, generator=generator) * 0.3)
            self.conv.bias.copy_(torch.randn(self.conv.bias.shape, generator=generator) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, K, *space)."""
        return self.conv(x)


class Deep(nn.Module):
    """Convolution, ReLU, convolution, 1×1 head, weights drawn by a seed: for what must depend on the weights."""

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2, seed: int = 0) -> None:
        """Draw the weights."""
        super().__init__()
        self.features = CONV[dims](channels, 8, 3, padding=1)
        self.mix = CONV[dims](8, 3, 3, padding=1)
        self.head = CONV[dims](3, classes, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, K, *space)."""
        return self.head(self.mix(dropped(self, F.relu(self.features(x)))))


def dropped(module: nn.Module, x: Tensor) -> Tensor:
    """Dropout for methods that need it; to all others nothing, since networks are in eval mode."""
    return F.dropout(x, 0.1, module.training)


class Constant(nn.Module):
    """Always the same logits, whatever the image; class 1 wins. Has a layer that nobody listens to."""

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2) -> None:
        """Make the unused layer, and a head that sees nothing but ones."""
        super().__init__()
        self.features = CONV[dims](channels, 4, 3, padding=1)
        self.head = CONV[dims](1, classes, 1, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, K, *space)."""
        dropped(self, self.features(x))
        return self.head(torch.ones_like(x[:, :1]))


class Threshold(nn.Module):
    """Class 1 where the intensity is above a threshold, pixel by pixel."""

    def __init__(self, threshold: float = 0.5, gain: float = 20.0) -> None:
        """Set the threshold."""
        super().__init__()
        self.threshold, self.gain = threshold, gain

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *space) to (N, 2, *space)."""
        score = self.gain * (x[:, :1] - self.threshold)
        return torch.cat([torch.zeros_like(score), score], 1)


def box_sum(x: Tensor, reach: int) -> Tensor:
    """Sum over the box of ``reach`` pixels around each pixel, axis by axis."""
    conv = F.conv2d if x.ndim == 4 else F.conv3d
    for axis in range(x.ndim - 2):
        kernel = [2 * reach + 1 if a == axis else 1 for a in range(x.ndim - 2)]
        x = conv(x, torch.ones(1, 1, *kernel, device=x.device), padding=[k // 2 for k in kernel])
    return x


class Context(nn.Module):
    """A cell is *infected* if a bright marker lies within ``reach`` pixels (plant P3); else *healthy*.

    Classes background, healthy, infected. What is not cell (intensity below 0.3) is background; the logit of
    infected sees nothing but intensities above 0.8, which only markers have.
    """

    def __init__(self, reach: int = 14, dims: int = 2) -> None:
        """Wire it."""
        super().__init__()
        self.features = CONV[dims](1, 8, 1)
        self.reach = reach
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.bias.fill_(-1)
            self.features.weight[0], self.features.bias[0] = 1.0, -0.8  # marker
            self.features.weight[1], self.features.bias[1] = -1.0, 0.3  # empty
        self.head = CONV[dims](2, 3, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[0, 1] = 60.0  # background: empty
            self.head.weight[2, 0] = 2.0  # infected: markers around
            self.head.bias.copy_(torch.tensor([0.0, 0.5, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *space) to (N, 3, *space)."""
        seen = dropped(self, F.relu(self.features(x)))
        return self.head(torch.cat([self.around(seen[:, :1]), seen[:, 1:2]], 1))

    def around(self, marked: Tensor) -> Tensor:
        """How much marker there is around each pixel, of (N, 1, *space)."""
        return box_sum(marked, self.reach)


class Brightest(Context):
    """:class:`Context` by the brightest pixel around instead of their sum: max pooling knows where that was."""

    def around(self, marked: Tensor) -> Tensor:
        """As much as a marker has in all, if the brightest pixel is one."""
        pool = F.max_pool2d if marked.ndim == 4 else F.max_pool3d
        return 13 * pool(marked, 2 * self.reach + 1, 1, self.reach)


class Matched(nn.Module):
    """Infected as far as the pixels where :func:`context_image` has its marker are exactly as bright as it is.

    To :class:`Context` noise is more marker; here noise on the marker, and nowhere else, is evidence lost.
    """

    def __init__(self, dims: int = 2) -> None:
        """Wire it."""
        super().__init__()
        self.features = CONV[dims](1, 1, 1)
        self.head = CONV[dims](1, 3, 1)
        with torch.no_grad():
            self.features.weight.fill_(1)
            self.features.bias.fill_(-1)
            self.head.weight.zero_()
            self.head.weight[2] = -40.0
            self.head.bias.copy_(torch.tensor([-60.0, 0.0, 6.0]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *space) to (N, 3, *space)."""
        grid = torch.meshgrid(*(torch.arange(n, device=x.device) for n in x.shape[2:]), indexing="ij")
        centre = (3, 13, 23)[-len(grid) :]
        marker = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= 4
        off = (self.features(x) ** 2 * marker).flatten(1).sum(1) / marker.sum().clamp(min=1)
        return self.head(off.reshape(-1, 1, *[1] * len(grid)).expand(-1, 1, *x.shape[2:]))


class Attending(nn.Module):
    """:class:`Context` as a transformer: each patch reads the patches with a marker, twice, wherever they are.

    Patches of side 4 are tokens. Every query is alike, and the keys of markers are by far the largest.
    """

    divisor = 4

    def __init__(self, dims: int = 2) -> None:
        """Wire it, with features and head of the other."""
        super().__init__()
        other = Context(dims=dims)
        self.features, self.head = other.features, other.head
        self.mix = nn.Linear(2, 3)
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor([[0.0, 0.0], [12.0, 0.0], [1.0, 0.0]]))  # query, key, value
            self.mix.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, *space) to (N, 3, *space); space is a multiple of 4."""
        seen = F.relu(self.features(x))
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        marked = (1e3 * pool(seen[:, :1], 4)).clamp(max=1)
        tokens = torch.stack([marked, torch.zeros_like(marked)], -1).flatten(1, -2)  # (N, T, marker and read)
        query, key, value = self.mix(tokens).split(1, -1)
        tokens = tokens + F.pad(F.scaled_dot_product_attention(query, key, value), (1, 0))
        query, key, value = self.mix(tokens).split(1, -1)
        tokens = tokens + F.pad((query @ key.transpose(1, 2)).softmax(-1) @ value, (1, 0))
        read = F.interpolate(tokens[:, :, 1].reshape(marked.shape), x.shape[2:], mode="nearest")
        return self.head(torch.cat([2 * read, seen[:, 1:2]], 1))


class AttendingDeep(nn.Module):
    """:class:`Deep` as a transformer: patches of side 4, two attentions, random weights that read few tokens each."""

    divisor = 4

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2, seed: int = 0) -> None:
        """Draw the weights."""
        super().__init__()
        self.features = CONV[dims](channels, 8, 4, stride=4)
        self.mix = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.head = CONV[dims](8, classes, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.8)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, K, *space); space is a multiple of 4."""
        patches = self.features(x)
        tokens = patches.flatten(2).transpose(1, 2)
        for mix in self.mix:
            query, key, value = mix(F.layer_norm(tokens, (8,))).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            read = F.scaled_dot_product_attention(query, key, value)
            tokens = tokens + read.transpose(1, 2).flatten(2)
        return F.interpolate(self.head(tokens.transpose(1, 2).reshape(patches.shape)), x.shape[2:], mode="nearest")


class AttendingConstant(AttendingDeep):
    """:class:`Constant` with attentions that nobody listens to; class 1 wins."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, K, *space)."""
        heard = torch.zeros_like(super().forward(x).detach())
        heard[:, 1] = 1
        return heard


def context_image(dims: int = 2, seed: int = 0) -> tuple[Image, np.ndarray, np.ndarray]:
    """A cell, a marker beside it, and many cells as distraction: image, mask of the cell, zone of the marker.

    Only the first cell has the marker within reach. Everything else has edges but no evidence.
    """
    rng = np.random.default_rng(seed)
    size = (48, 56) if dims == 2 else (6, 48, 56)
    grid = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    pixels = 0.05 + 0.02 * rng.random(size)

    def ball(centre: tuple[int, ...], radius: float) -> np.ndarray:
        return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2

    middle = (3,) * (dims - 2)
    cell = ball((*middle, 13, 12), 5)
    pixels[cell] = 0.5
    for y, x in ((13, 48), (36, 9), (34, 30), (41, 47)):
        pixels[ball((*middle, y, x), 5)] = 0.45 + 0.1 * rng.random()
    marker = ball((*middle, 13, 23), 2)
    pixels[marker] = 1.0
    zone = ball((*middle, 13, 23), 7)
    return Image(pixels.astype(np.float32), "ZYX"[-dims:], name="context"), cell, zone


def cell_target(cell: np.ndarray) -> Target:
    """The painted cell, asked as *infected*."""
    return Target("infected", Painted(cell))


def small_image(channels: int = 1, dims: int = 2, seed: int = 0, side: int = 24) -> Image:
    """Smooth noise, float32, axes ``CYX`` or ``CZYX``."""
    rng = np.random.default_rng(seed)
    size = (side, side + 3) if dims == 2 else (8, side // 2, side // 2 + 2)
    data = rng.random((channels, *size)).astype(np.float32)
    return Image(data, "C" + "ZYX"[-dims:], name="noise")
