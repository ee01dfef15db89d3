"""Networks of several annotators whose answers are known, and planted annotators to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage

from hand import Constant, Context, Deep
from seglens.core.run import Run
from seglens.models.nets.annotators import AnnotatorHead, AnnotatorUNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from
from seglens.training.annotators import AnnotatorTask
from seglens.training.batches import Batch, encode
from seglens.training.data import Sample
from seglens.training.recipe import Recipe


class PlantedAnnotators(Context):
    """:class:`Context` as two annotators draw it: to the first every cell is infected, to the second none.

    Features are how much marker there is around a pixel and how empty it is. The first has prototypes of infected
    cells, the second of healthy ones; what they never drew is far from everything.
    """

    def __init__(self, reach: int = 14, dims: int = 2) -> None:
        """Wire it."""
        super().__init__(reach, dims)
        plain = self.head
        self.head = AnnotatorHead(2, 3, ("bold", "shy"), 2, dims)
        with torch.no_grad():
            self.head.shared.weight.copy_(plain.weight)
            self.head.shared.bias.copy_(plain.bias)
            self.head.shared.weight[2, 0] *= 0.2
            self.head.bias[:, 2] = torch.tensor([8.0, -8.0])
            self.head.bank.fill_(9)
            self.head.bank[:, 0] = torch.tensor([0.0, 0.25])
            for r, k in ((0, 2), (1, 1)):
                self.head.bank[r, k] = torch.tensor([[0.0, 0.0], [2.5, 0.0]])


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


def recipe_for(**more: object) -> Recipe:
    """A small recipe for :func:`samples`."""
    spec = ModelSpec(
        "planted", "YX", ("grey",), classes_from(("background", "cell")), normalisation=Normalisation("none"), divisor=4
    )
    usual: dict[str, object] = {
        "arguments": {"in_channels": 1, "out_channels": 2, "features": [6, 8, 12], "prototypes": 3},
        "network": "annotator-unet",
        "augmentation": "flips",
        "truth": "classes",
        "border": 0,
        "task": "seglens.training.annotators.AnnotatorTask",
    }
    return Recipe(spec=spec, **{**usual, **more})  # type: ignore[arg-type]


def learned(by: dict[str, int], steps: int, seed: int = 0) -> tuple[SegmentationModel, dict[str, Any]]:
    """A network trained on planted annotators by the loss of the task alone, and what the task told after it."""
    recipe, train, rng = recipe_for(), samples(24, by), np.random.default_rng(seed)
    task = AnnotatorTask(recipe, Run())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = AnnotatorUNet(**task.arguments(train))
        every = [encode(s, recipe, net.divisor, sorted(by)) for s in train]
        optimiser = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps + 1)
        for _ in range(steps):
            loss = task.loss(net, together([every[i] for i in rng.integers(len(every), size=4)]), "all")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    told = task.after("training", net.eval(), train, Run())
    return SegmentationModel(net, recipe.spec), told


def together(batches: list[Batch]) -> Batch:
    """One batch of several."""
    people = torch.cat([b.more["annotators"] for b in batches])
    return Batch(torch.cat([b.image for b in batches]), torch.cat([b.labels for b in batches]), {"annotators": people})
