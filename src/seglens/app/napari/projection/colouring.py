"""What the colour of a point says: its cluster, its IoU, its class or its group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.utils.colormaps import ensure_colormap
from numpy.typing import NDArray

from seglens.app.napari.drawing import CYCLE
from seglens.app.napari.projection import texts

GREY = "#8a949b"
MOST = len(CYCLE) - 1  # names with a colour of their own; the rest share one
MAP = "viridis"


@dataclass(frozen=True, eq=False)
class Paint:
    """Colours of points, and what they mean.

    Args:
        colours: RGBA per point (n, 4).
        names: name and colour of each entry of the legend; empty where a scale says it.
        scale: whether the colours run from 0 to 1.
    """

    colours: NDArray[np.float64]
    names: tuple[tuple[str, str], ...] = ()
    scale: bool = False


def paint(by: str, found: Any, entries: Sequence[Any]) -> Paint:
    """Colours of the points of a projection.

    Args:
        by: ``cluster``, ``iou``, ``class`` or ``group``.
        found: the projection.
        entries: what the bank says about its rows.
    """
    if by == "iou":
        known = np.isfinite(found.iou)
        colours = np.tile(rgba(GREY), (len(found.rows), 1))
        colours[known] = ensure_colormap(MAP).map(np.clip(found.iou[known], 0, 1))
        return Paint(colours, scale=True)
    if by == "cluster":
        names = [texts.CLUSTER.format(number=n + 1) if n >= 0 else texts.NOISE for n in found.labels.tolist()]
        order = [texts.CLUSTER.format(number=n + 1) for n in range(found.k)]
        return _named(names, order, texts.NOISE)
    names = [(e.predicted if by == "class" else e.group) or texts.UNKNOWN for e in entries]
    return _named(names, [n for n, _ in Counter(names).most_common()], "")


def _named(names: list[str], order: list[str], grey: str) -> Paint:
    own = {name: CYCLE[i] for i, name in enumerate(order[:MOST])}
    table = {name: own.get(name, GREY if name == grey else CYCLE[-1]) for name in set(names)}
    legend = [(n, own[n]) for n in order[:MOST]]
    legend += [(texts.FURTHER, CYCLE[-1])] if len(order) > MOST else []
    legend += [(grey, GREY)] if grey in table else []
    return Paint(np.array([rgba(table[name]) for name in names]), tuple(legend))


def rgba(colour: str) -> NDArray[np.float64]:
    """A colour such as #8a949b as four numbers."""
    return np.array([*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0])
