"""Two masks side by side: what an edit of the image did to what the model draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seglens.core.explanation import Table
from seglens.engine.target import objects
from seglens.models.spec import ModelSpec

Mask = NDArray[np.bool_]
Labels = NDArray[Any]


def outcome(before: Labels, after: Labels, region: Mask, index: int, name: str) -> str:
    """In words: the share of the region of the class before and after, and new pixels of it outside."""
    had, still = (float((labels[region] == index).mean()) for labels in (before, after))
    spill = int(((after == index) & (before != index) & ~region).sum())
    share = f"{still:.0%} of it is still {name}" if had else f"none of it was {name}, and {still:.0%} is now"
    return f"{share}; {spill} new pixels of {name} appear elsewhere."


def aside(patch: Mask, taken: Mask) -> Mask | None:
    """The patch moved to the place furthest from itself and from what is taken; ``None`` if there is no room."""
    box = ndimage.find_objects(patch.astype(np.uint8))[0]
    shape = patch[box]
    free = ndimage.distance_transform_edt(np.pad(~(taken | patch), 1))[tuple([slice(1, -1)] * patch.ndim)]
    # the whole box must fit, so its half is no place for a centre
    for axis, size in enumerate(shape.shape):
        edge = np.arange(patch.shape[axis])
        outside = (edge < size // 2) | (edge > patch.shape[axis] - (size - size // 2))
        free[(slice(None),) * axis + (outside,)] = 0
    if free.max() == 0:
        return None
    centre = np.unravel_index(int(free.argmax()), free.shape)
    start = [int(c) - s // 2 for c, s in zip(centre, shape.shape, strict=True)]
    moved = np.zeros_like(patch)
    moved[tuple(slice(s, s + n) for s, n in zip(start, shape.shape, strict=True))] = shape
    return None if (moved & (taken | patch)).any() else moved


def softened(patch: Mask, width: float) -> NDArray[np.float32]:
    """The patch (*space) as 1 and 0, its edge softened over about ``width`` pixels, outwards only.

    Inside, 1 everywhere: what is replaced there must be gone.
    """
    soft = patch.astype(np.float32)
    return np.where(patch, np.float32(1), ndimage.gaussian_filter(soft, width)) if width else soft


def class_table(before: Labels, after: Labels, spec: ModelSpec) -> Table:
    """Pixels of each class before and after, and the Dice of the two masks."""
    rows = []
    for index, one in enumerate(spec.classes):
        a, b = before == index, after == index
        both = int(a.sum() + b.sum())
        rows.append((one.name, int(a.sum()), int(b.sum()), 2 * int((a & b).sum()) / both if both else float("nan")))
    names = ("class", "pixels before", "pixels after", "Dice of before and after")
    return Table("classes", {n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)})


def object_table(before: Labels, after: Labels, patch: Mask, spec: ModelSpec) -> Table:
    """For each predicted object: whether the edit touched it, its class before and after, and the share kept.

    The class after is that of most of its pixels.
    """
    numbered = objects(before)
    numbers = np.unique(numbered[numbered > 0])
    names = [c.name for c in spec.classes]
    kept = ndimage.mean(before == after, numbered, numbers) if len(numbers) else []
    touched = ndimage.maximum(patch, numbered, numbers) if len(numbers) else []
    votes = [ndimage.sum(after == k, numbered, numbers) for k in range(len(names))]
    columns = {
        "object": numbers.tolist(),
        "replaced": [bool(t) for t in touched],
        "class before": [names[int(before[numbered == n][0])] for n in numbers],
        "class after": [names[int(k)] for k in np.argmax(votes, 0)] if len(numbers) else [],
        "share of pixels with the same class": [float(k) for k in kept],
    }
    return Table("objects", columns)


def changes(table: Table) -> str:
    """One sentence on the objects of :func:`object_table` that were not edited and changed their class."""
    moved = [
        f"object {row['object']} changed from {row['class before']} to {row['class after']}"
        for row in table.rows()
        if row["class before"] != row["class after"] and not row["replaced"]
    ]
    if not moved:
        return "No other object changed its class."
    more = f", and {len(moved) - 3} more changed" if len(moved) > 3 else ""
    return f"Elsewhere, {', '.join(moved[:3])}{more}."
