"""From samples to tensors: augmented crops to learn from, whole images to be scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seglens.core.run import Run
from seglens.training.augment import AUGMENTATIONS, crop_pair
from seglens.training.data import Array, Sample, annotators, class_labels, normalise
from seglens.training.losses import UNKNOWN
from seglens.training.recipe import Recipe

Item = tuple[Tensor, Tensor, dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step learns from.

    Args:
        image: (N, C, *space), normalised.
        labels: (N, *space) class numbers; :data:`seglens.training.losses.UNKNOWN` where nobody knows.
        more: ``annotators`` (N, R, *space), the classes that each of several annotators gave, in the order of
            :func:`seglens.training.data.annotators` of the training samples, where the data have several;
            UNKNOWN everywhere where one did not see an image.
    """

    image: Tensor
    labels: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)


def encode(sample: Sample, recipe: Recipe, divisor: int = 1, people: Sequence[str] = ()) -> Batch:
    """One whole image as a batch: normalised, not augmented, sides cut to a multiple of ``divisor``.

    Args:
        sample: the image and its truth.
        recipe: how images are normalised and what the classes are.
        divisor: what the network divides its input by (``network.divisor``).
        people: the annotators to give, in order; none for no ``more``.
    """
    box = tuple(slice(0, max(1, n // divisor) * divisor) for n in sample.truth.shape)
    image = normalise(sample.image, recipe.spec, sample.name)[box]
    labels = _labels(sample.truth[box], sample.classes, recipe)
    more = {"annotators": _stacked(_planes(sample, people)[box], sample, people, recipe)} if people else {}
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))
    return Batch(x[None], torch.from_numpy(labels)[None], {k: torch.from_numpy(v)[None] for k, v in more.items()})


class Crops(Dataset[Item]):
    """``steps × batch`` augmented crops per epoch, each a pure function of (seed, epoch, number).

    An item is (C, *crop) normalised, (*crop) class numbers, and what :class:`Batch` holds more.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, run: Run) -> None:
        """Histology is augmented in 0…1 and normalised after; the others are normalised first."""
        self.recipe, self.run, self.epoch = recipe, run, 0
        how = recipe.spec.normalisation
        self.after = (how.then_mean, how.then_std)
        first = recipe.spec.with_(normalisation=replace(how, then_mean=0.0, then_std=1.0))
        self.people = annotators(samples)
        self.samples = [(s, normalise(s.image, first, s.name), _planes(s, self.people)) for s in samples]

    def __len__(self) -> int:
        """Crops per epoch."""
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, number: int) -> Item:
        """The crop of this number; stops here if the run was cancelled."""
        self.run.check()
        recipe = self.recipe
        rng = np.random.default_rng((self.run.seed, self.epoch, number))
        sample, image, planes = self.samples[int(rng.integers(len(self.samples)))]
        image, planes = crop_pair(image, planes, recipe.crop, recipe.zoom, rng)
        image = AUGMENTATIONS[recipe.augmentation](image, planes[..., 0], rng)
        image = (image - self.after[0]) / self.after[1]
        labels = _labels(planes[..., 0], sample.classes, recipe)
        more = {"annotators": _stacked(planes, sample, self.people, recipe)} if self.people else {}
        x = torch.from_numpy(image).float().movedim(-1, 0)
        return x, torch.from_numpy(labels), {k: torch.from_numpy(v) for k, v in more.items()}


class Whole(Dataset[tuple[Tensor, Tensor]]):
    """Whole images, normalised (C, *space), with their class numbers (*space); sides cut to the divisor."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, divisor: int) -> None:
        """Nothing is augmented."""
        self.items = [encode(sample, recipe, divisor) for sample in samples]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Image and truth."""
        batch = self.items[number]
        return batch.image[0], batch.labels[0]


def _planes(sample: Sample, people: Sequence[str]) -> Array:
    """The truth and each annotator's, (*space, 1 + R): cropped and turned as one."""
    truth = sample.truth.astype(np.min_scalar_type(int(sample.truth.max())))
    nothing = np.zeros_like(truth)
    return np.stack([truth, *(sample.annotators.get(who, nothing) for who in people)], -1)


def _labels(truth: Array, classes: bool, recipe: Recipe) -> Any:
    return truth.astype(np.int64) if classes else class_labels(truth, recipe.border)


def _stacked(planes: Array, sample: Sample, people: Sequence[str], recipe: Recipe) -> Any:
    """Classes by annotator, (R, *space)."""
    nobody = np.full(planes.shape[:-1], UNKNOWN, np.int64)
    seen = [who in sample.annotators for who in people]
    return np.stack(
        [_labels(planes[..., i + 1], sample.classes, recipe) if known else nobody for i, known in enumerate(seen)]
    )
