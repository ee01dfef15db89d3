"""Which regions of a plane are embedded, as one map of numbers; and what each of them is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seglens.engine.features._truth import Truth
from seglens.engine.features.entry import BankInfo
from seglens.engine.target import objects

Labels = NDArray[Any]


@dataclass(frozen=True)
class Piece:
    """One region: where it is and what it is; see :class:`~seglens.engine.features.entry.Entry`."""

    position: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    pixels: int
    predicted: str
    truth: str | None
    iou: float | None


def numbered(labels: Labels, info: BankInfo, rng: np.random.Generator) -> tuple[NDArray[np.int32], int]:
    """Regions of a plane (*space) as numbers from 1, and how many.

    Args:
        labels: predicted class per pixel.
        info: kind, side, classes, smallest and how many.
        rng: chooses where not all are taken.
    """
    wanted = [info.classes.index(name) for name in info.only]
    if info.kind == "pixel":
        return _pixels(labels, wanted, info.per_image or labels.size, rng)
    if info.kind == "patch":
        numbers = _grid(labels.shape, info.side)
        keep = _with_classes(numbers, labels, wanted, len(info.classes)) if wanted else None
    else:
        numbers, keep = objects(np.where(np.isin(labels, wanted), labels, 0) if wanted else labels), None
    sizes = np.bincount(numbers.ravel())
    chosen = sizes >= info.smallest
    chosen[0] = False
    if keep is not None:
        chosen &= keep
    which = np.flatnonzero(chosen)
    if info.per_image is not None and len(which) > info.per_image:
        which = np.sort(rng.choice(which, info.per_image, replace=False))
    new = np.zeros(len(sizes), np.int32)
    new[which] = np.arange(1, len(which) + 1)
    return new[numbers], len(which)


def _grid(shape: tuple[int, ...], side: int) -> NDArray[np.int32]:
    numbers = np.zeros(shape, np.int32)
    for axis, size in enumerate(shape):
        line = np.arange(size) // side
        numbers = numbers * (line[-1] + 1) + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.asarray(numbers + 1, np.int32)


def _with_classes(numbers: Labels, labels: Labels, wanted: list[int], classes: int) -> NDArray[np.bool_]:
    counts = np.bincount((numbers.astype(np.int64) * classes + labels).ravel())
    counts = np.pad(counts, (0, -len(counts) % classes)).reshape(-1, classes)
    return np.isin(counts.argmax(1), wanted)


def _pixels(labels: Labels, wanted: list[int], most: int, rng: np.random.Generator) -> tuple[NDArray[np.int32], int]:
    """As many of each class as there are, or an equal share."""
    flat = labels.ravel()
    present = [int(c) for c in np.unique(flat) if not wanted or c in wanted]
    chosen: list[NDArray[Any]] = []
    left = most
    for place, index in enumerate(sorted(present, key=lambda c: int((flat == c).sum()))):
        of_class = np.flatnonzero(flat == index)
        count = min(len(of_class), left // (len(present) - place))
        chosen.append(rng.choice(of_class, count, replace=False))
        left -= count
    spots = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
    numbers = np.zeros(flat.shape, np.int32)
    numbers[spots] = np.arange(1, len(spots) + 1)
    return numbers.reshape(labels.shape), len(spots)


def described(numbers: Labels, labels: Labels, truth: Truth | None, info: BankInfo) -> Iterator[Piece]:
    """What each region is, in the order of their numbers.

    Args:
        numbers: of :func:`numbered` (*space).
        labels: predicted class per pixel.
        truth: of this plane.
        info: kind and classes.
    """
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        inside = numbers[box] == number
        at = np.argwhere(inside)
        middle = at[((at - at.mean(0)) ** 2).sum(1).argmin()]
        predicted = _most(labels[box][inside])
        known: tuple[str | None, float | None] = (None, None)
        if truth is not None:
            own = truth.classes[box][inside]
            share = _overlap(labels[box][inside], own, predicted) if info.kind != "object" else truth.iou(box, inside)
            known = info.classes[_most(own)], share
        yield Piece(
            tuple(int(s.start + m) for s, m in zip(box, middle, strict=True)),
            tuple((int(s.start), int(s.stop)) for s in box), len(at), info.classes[predicted], *known,
        )  # fmt: skip


def _most(values: Labels) -> int:
    return int(np.bincount(values).argmax())


def _overlap(labels: Labels, truth: Labels, index: int) -> float:
    """Of one class, within a patch or pixel."""
    mine, there = labels == index, truth == index
    return float((mine & there).sum() / (mine | there).sum())
