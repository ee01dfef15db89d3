"""Boxes: one slice per axis of space. Plain arithmetic, shared by tiles, crops, windows and reach."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[slice, ...]


def whole(shape: Sequence[int]) -> Box:
    """All of an image."""
    return tuple(slice(0, n) for n in shape)


def common(one: Sequence[slice], other: Sequence[slice]) -> Box | None:
    """What two boxes share; ``None`` if nothing."""
    both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return both if all(s.start < s.stop for s in both) else None


def around(boxes: Sequence[Sequence[slice]]) -> Box:
    """The smallest box that holds all."""
    return tuple(slice(min(s.start for s in spans), max(s.stop for s in spans)) for spans in zip(*boxes, strict=True))


def moved(box: Sequence[slice], corner: Sequence[int]) -> Box:
    """A box of the image in the coordinates of a crop that starts at ``corner``."""
    return tuple(slice(s.start - c, s.stop - c) for s, c in zip(box, corner, strict=True))


def at_box(box: Sequence[slice]) -> tuple[slice, ...]:
    """A box as an index into (N, C, *space)."""
    return (slice(None), slice(None), *box)
