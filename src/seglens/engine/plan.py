"""Which part of the image has to be looked at, and which changes can share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from torch import Tensor

from seglens.core.boxes import Box, around, common, whole
from seglens.engine.perturb import Perturbations
from seglens.engine.reach import Reach, TileReach
from seglens.engine.target import FrozenTarget

if TYPE_CHECKING:
    from seglens.engine.dirty import Rectangles

ALIKE = 1e-5  # of the largest logit: what rounding may do, and no more
LARGE = 1024 * 1024  # pixels from which a crop pays even for one pass
WORTH = 0.8  # a crop of more than this share of the image is not worth its check


@dataclass(frozen=True)
class Scored:
    """Some of the scores.

    Args:
        index: which copies (n,).
        scores: their numbers, (n, targets) in float64.
    """

    index: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Plan:
    """How perturbed copies are scored.

    Args:
        shape: of the image.
        crop: the part that goes through the model.
        groups: copies that share a pass; ``None``: each takes its own.
        silent: copies that cannot change the score.
        met: per copy the box of the output that it can change and that counts; only with ``groups``.
        count: how many copies there are.
        rectangles: instead of whole passes, what each window changes; see :mod:`seglens.engine.dirty`.
    """

    shape: tuple[int, ...]
    crop: Box
    groups: tuple[tuple[int, ...], ...] | None
    silent: tuple[int, ...]
    met: dict[int, Box]
    count: int
    rectangles: Rectangles | None = None

    @property
    def passes(self) -> int:
        """Forward passes of the crop, or of rectangles of it."""
        if self.rectangles is not None:
            return self.rectangles.passes
        return self.count if self.groups is None else len(self.groups)

    @property
    def weight(self) -> float:
        """The part of the network's work that a pass takes."""
        return 1.0 if self.rectangles is None else self.rectangles.share

    @property
    def images(self) -> float:
        """What it takes in forwards of the whole image, the clean one counted in."""
        more = 1 if self.rectangles is None else self.rectangles.checks + 1
        return (self.passes * self.weight + more) * self.share

    def until(self, done: int, size: int) -> int:
        """Where a batch of at most ``size`` passes ends that starts at ``done``."""
        return min(done + size, self.passes) if self.rectangles is None else self.rectangles.until(done, size)

    @property
    def share(self) -> float:
        """The crop's part of the image."""
        return float(prod(s.stop - s.start for s in self.crop) / prod(self.shape))

    @property
    def cropped(self) -> bool:
        """Whether less than the image is looked at."""
        return self.share < 1


def field(
    targets: Sequence[FrozenTarget], shape: tuple[int, ...], reach: Reach | TileReach | None, divisor: int = 1
) -> Box:
    """The part of the image on which the targets can depend, grown to keep the network's alignment."""
    return seen(around([t.box for t in targets]), shape, reach, divisor)


def seen(box: Box, shape: tuple[int, ...], reach: Reach | TileReach | None, divisor: int = 1) -> Box:
    """The part of the image that a box of the output depends on; all of it where a crop would save too little."""
    everything = whole(shape)
    if reach is None:
        return everything
    box = reach.aligned(reach.needed(box, shape), shape, divisor)
    return box if prod(s.stop - s.start for s in box) <= WORTH * prod(shape) else everything


def plan(
    perturbations: Perturbations,
    targets: Sequence[FrozenTarget],
    crop: Box,
    shape: tuple[int, ...],
    reach: Reach | TileReach | None,
) -> Plan:
    """Pack what cannot meet; see :class:`Plan`."""
    count = len(perturbations)
    boxes = perturbations.boxes
    if boxes is None or reach is None:
        return Plan(shape, crop, None, (), {}, count)
    seen = around([t.box for t in targets])
    met: dict[int, Box] = {}
    for number, box in enumerate(boxes):
        both = common(reach.influenced(box, shape), seen)
        if both is not None:
            met[number] = both
    silent = tuple(n for n in range(count) if n not in met)
    return Plan(shape, crop, _groups(met), silent, met, count)


def _groups(met: dict[int, Box]) -> tuple[tuple[int, ...], ...]:
    """Copies whose boxes of influence do not meet, axis by axis: the colouring of an interval graph.

    Two windows of one group differ in their interval along some axis, and intervals of one colour are disjoint.
    """
    if not met:
        return ()
    colours = []
    for axis in range(len(next(iter(met.values())))):
        spans = sorted({(b[axis].stop, b[axis].start) for b in met.values()})
        ends: list[int] = []
        colour: dict[tuple[int, int], int] = {}
        for stop, start in sorted(spans, key=lambda s: (s[1], s[0])):
            free = next((c for c, end in enumerate(ends) if end <= start), len(ends))
            ends[free : free + 1] = [stop]
            colour[start, stop] = free
        colours.append(colour)
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    taken: dict[tuple[tuple[int, int], ...], int] = {}
    for number, box in met.items():
        spans_of = tuple((s.start, s.stop) for s in box)
        # windows of different places may have the same influence: each such twin needs a pass of its own
        twin = taken[spans_of] = taken.get(spans_of, -1) + 1
        layers = groups.setdefault(tuple(c[s] for c, s in zip(colours, spans_of, strict=True)), [])
        while len(layers) <= twin:
            layers.append([])
        layers[twin].append(number)
    return tuple(tuple(group) for layers in groups.values() for group in layers)
