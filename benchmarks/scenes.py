"""Networks, images and targets: the same ones for every contender, drawn by a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.image import Image
from seglens.core.target import Painted, Predicted, Target
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from

CHANNELS, CLASSES = 3, 4
NETWORKS = {"basicunet": 2, "basicunet-thin": 2, "unet": 2, "unet3d": 3}  # and their number of space axes
DIVISORS = {"basicunet": 16, "basicunet-thin": 16, "unet": 4, "unet3d": 4}
WIDTHS = {"basicunet": (16, 32, 64, 128, 256, 16), "basicunet-thin": (8, 16, 32, 64, 128, 8)}
# the bottleneck of the BasicUNets, of 256 and of 128 channels
LAYER = "down_4.convs.conv_1"
MANY = 50  # objects at once


def build(network: str) -> nn.Module:
    """A network with random weights by a seed, in eval mode, whose batch norms have seen images.

    Args:
        network: ``basicunet`` (MONAI, 2.0 million parameters, reach about 100 pixels, batch norm, ReLU in place) ·
            ``basicunet-thin`` (half as wide, so that 2048² fits into memory) · ``unet`` (ours, three levels, reach
            about 20) · ``unet3d`` (the same in 3-D, thinner).

    Returns:
        The network as a training leaves it: its parameters ask for gradients.
    """
    torch.manual_seed(0)
    if network in WIDTHS:
        from monai.networks.nets import BasicUNet

        norm, act = ("batch", {"affine": True}), ("relu", {"inplace": True})
        module: nn.Module = BasicUNet(2, CHANNELS, CLASSES, features=WIDTHS[network], norm=norm, act=act)
    else:
        dims = NETWORKS[network]
        module = UNet(CHANNELS, CLASSES, features=(16, 32, 64) if dims == 2 else (8, 16, 32), dims=dims)
    side = (128,) * 2 if NETWORKS[network] == 2 else (32,) * 3
    norms = [(m, m.momentum) for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    module.train()
    with torch.no_grad():
        for norm, _ in norms:
            # the mean over all passes: a moving one would leave half of the start, and signals die out with depth
            norm.momentum = None
        for seed in range(2, 5):
            module(torch.cat([pixels(side, seed), pixels(side, seed + 10)]))
    for norm, momentum in norms:
        norm.momentum = momentum
    return module.eval()


def pixels(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """A smooth random image (1, C, *shape), from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, CHANNELS, *(max(4, n // 16) for n in shape), generator=generator)
    smooth = F.interpolate(coarse, shape, mode="bilinear" if len(shape) == 2 else "trilinear")
    return 0.9 * smooth + 0.1 * torch.rand(1, CHANNELS, *shape, generator=generator)


@dataclass(frozen=True)
class Scene:
    """A network, the size of its image, and where both are."""

    network: str
    shape: tuple[int, ...]
    device: str = "cpu"

    @property
    def name(self) -> str:
        """For people: ``basicunet 256×256``."""
        return f"{self.network} {'×'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        """Pixels."""
        return prod(self.shape)

    @cached_property
    def module(self) -> nn.Module:
        """The network; its parameters are ordinary ones, whoever asks for it first."""
        with torch.inference_mode(False):
            return build(self.network).to(self.device)

    @cached_property
    def x(self) -> Tensor:
        """Input (1, C, *shape); the network takes intensities as they are."""
        with torch.inference_mode(False):
            return pixels(self.shape).to(self.device)

    @cached_property
    def logits(self) -> Tensor:
        """Of the clean image (1, K, *shape)."""
        with torch.inference_mode():
            logits: Tensor = self.module(self.x)
        return logits.clone()

    @cached_property
    def index(self) -> int:
        """The class that is explained: the one predicted most often."""
        return int(torch.bincount(self.logits.argmax(1).flatten(), minlength=CLASSES).argmax())

    def mask(self, target: str) -> NDArray[np.bool_]:
        """The pixels (*shape) of a target: ``class`` · ``object`` · ``painted`` · ``object 0`` … of the many."""
        if target == "class":
            return (self.logits.argmax(1)[0] == self.index).cpu().numpy()
        out = np.zeros(self.shape, bool)
        if target == "painted":
            flat = (16, 64, 64)[-len(self.shape) :] if len(self.shape) == 3 else (64, 64)
            out[tuple(slice(n // 2, n // 2 + s) for n, s in zip(self.shape, flat, strict=True))] = True
            return out
        if target == "object":
            return self._ball([3 * n // 8 for n in self.shape], min(20, min(self.shape) // 4))
        return self._ball(self._centres[int(target.split()[1])], max(2, min(12, self.shape[-1] // 40)))

    def number(self, logits: Tensor, targets: tuple[str, ...] = ("class",)) -> Tensor:
        """The targets' numbers (N, T) of logits (N, K, *shape): means of the class's logit, summed in float64."""
        flat = logits[:, self.index].flatten(1)
        return torch.stack([flat[:, self._places(t)].double().mean(1) for t in targets], 1)

    def _places(self, target: str) -> Tensor:
        """The numbers of a target's pixels."""
        if target not in self._found:
            self._found[target] = torch.from_numpy(np.flatnonzero(self.mask(target))).to(self.device)
        return self._found[target]

    @cached_property
    def _found(self) -> dict[str, Tensor]:
        return {}

    def target(self, name: str) -> Target:
        """The same target in the words of SegLens."""
        return Target(self.index, Predicted() if name == "class" else Painted(self.mask(name)))

    def model(self) -> SegmentationModel:
        """The network in the words of SegLens."""
        spec = ModelSpec(
            self.name,
            "ZYX"[-len(self.shape) :],
            tuple(f"channel {i}" for i in range(CHANNELS)),
            classes_from([f"class {i}" for i in range(CLASSES)]),
            normalisation=Normalisation("none"),
            divisor=DIVISORS[self.network],
        )
        return SegmentationModel(self.module, spec, device=self.device)

    def image(self) -> Image:
        """The image in the words of SegLens."""
        return Image(self.x[0].cpu().numpy(), "C" + "ZYX"[-len(self.shape) :], name="smooth noise")

    def _ball(self, centre: list[int], radius: int) -> NDArray[np.bool_]:
        grid = np.ogrid[tuple(slice(0, n) for n in self.shape)]
        return np.asarray(sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2)

    @cached_property
    def _centres(self) -> list[list[int]]:
        """Centres of the many objects, on a lattice of 8 × 7 in the last two axes."""
        *deep, height, width = self.shape
        cells = list(product(range(7), range(8)))[:MANY]
        return [[*(n // 2 for n in deep), (2 * y + 1) * height // 14, (2 * x + 1) * width // 16] for y, x in cells]
