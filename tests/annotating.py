"""Networks of several annotators whose answers are known, and planted annotators to learn from."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from hand import Constant, Context, Deep
from seglens.models.nets.annotators import AnnotatorHead
from seglens.training.data import Sample


class PlantedAnnotators(Context):
    """:class:`Context` as two annotators draw it: the second calls nothing infected.

    Features are how much marker there is around a pixel and how empty it is. Prototypes of the first for *infected*
    have the marker around, those of the second do not.
    """

    def __init__(self, reach: int = 14, dims: int = 2) -> None:
        """Wire it."""
        super().__init__(reach, dims)
        plain = self.head
        self.head = AnnotatorHead(2, 3, ("bold", "shy"), 2, dims)
        with torch.no_grad():
            self.head.shared.weight.copy_(plain.weight)
            self.head.shared.bias.copy_(plain.bias)
            self.head.bias[:, 2] = torch.tensor([50.0, -50.0])
            self.head.bank.zero_()
            self.head.bank[0, 2, :, 0] = torch.tensor([1.0, 2.0])
            self.head.bank[1, 1, :, 0] = torch.tensor([1.0, 2.0])
            self.head.bank[:, 0, :, 1] = 0.25


class DeepAnnotators(Deep):
    """:class:`Deep` with an own kernel for each of three annotators, all drawn by the seed."""

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2, seed: int = 0) -> None:
        """Draw the weights."""
        super().__init__(channels, classes, dims, seed)
        self.head = AnnotatorHead(3, classes, ("one", "two", "three"), 2, dims)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
            self.head.bias.zero_()
            self.head.shared.bias.zero_()


class ConstantAnnotators(Constant):
    """:class:`Constant` with two annotators who agree that all is class 1."""

    def __init__(self, channels: int = 1, classes: int = 2, dims: int = 2) -> None:
        """A head that sees nothing but ones."""
        super().__init__(channels, classes, dims)
        plain = self.head
        self.head = AnnotatorHead(1, classes, ("one", "two"), 1, dims)
        with torch.no_grad():
            self.head.shared.weight.copy_(plain.weight)
            self.head.shared.bias.zero_()


def blobs(count: int, side: int = 64, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures (side, side) of soft bright discs with noise, and what is exactly a disc."""
    rng, grid = np.random.default_rng(seed), np.mgrid[:side, :side]
    made = []
    for _ in range(count):
        mask = np.zeros((side, side), bool)
        for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
            centre = np.array([y, x]) + rng.integers(-3, 4, 2)
            mask |= ((grid - centre[:, None, None]) ** 2).sum(0) <= rng.integers(7, 10) ** 2
        soft = ndimage.gaussian_filter(mask.astype(float), 2.0)
        made.append(((soft + 0.03 * rng.normal(size=mask.shape)).astype(np.float32), mask))
    return made


def changed(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask, larger all around by so many pixels, or smaller."""
    outside, inside = ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask)
    return outside <= by if by > 0 else inside > -by


def samples(count: int, by: dict[str, int], seed: int = 0) -> list[Sample]:
    """Training samples of which annotators draw every disc larger or smaller by some pixels."""
    return [
        Sample(f"blobs-{i}", pixels[..., None], mask.astype(np.int32), True,
               {who: changed(mask, r).astype(np.int32) for who, r in by.items()})
        for i, (pixels, mask) in enumerate(blobs(count, seed=seed))
    ]  # fmt: skip
