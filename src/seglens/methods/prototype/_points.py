"""A projection told as tables, figures and words, with the asked image's objects among the points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from seglens.core.explanation import Figure, Table
from seglens.core.plural import plural
from seglens.engine.features import Entry, FeatureBank
from seglens.engine.features.projection import Projection
from seglens.methods.prototype._bank import Seen, provenance

TYPICAL = 3  # features that are named of a cluster
NAMES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class Points:
    """A projection of a bank.

    Args:
        bank: of what.
        found: the points.
        seen: the asked image's objects.
    """

    bank: FeatureBank
    found: Projection
    seen: Seen

    @cached_property
    def at(self) -> NDArray[np.float32]:
        """Where the image's objects lie (q, components)."""
        return self.found.place(self.seen.vectors)

    @cached_property
    def own(self) -> NDArray[np.int64]:
        """Their clusters (q,); -1 is none."""
        return self.found.cluster_at(self.at) if len(self.at) else np.zeros(0, np.int64)

    @cached_property
    def off(self) -> NDArray[np.float64]:
        """How far they lie from the middle of their cluster, or of the nearest (q,)."""
        middles = self.found.middles()
        if not len(self.at) or not len(middles):
            return np.zeros(len(self.at))
        nearest = cKDTree(middles).query(self.at)[1]
        to: NDArray[np.float64] = np.linalg.norm(self.at - middles[np.where(self.own < 0, nearest, self.own)], axis=1)
        return to

    @cached_property
    def likely(self) -> NDArray[np.float64]:
        """The mean IoU of the nearest examples (q,)."""
        return self.found.iou_at(self.at)

    @cached_property
    def entries(self) -> list[Entry]:
        """Of all points."""
        return self.bank.entries(self.found.rows)

    def tables(self, examples: int) -> tuple[Table, ...]:
        """Clusters, examples of each, the image's objects, and all points."""
        found = self.found
        rows = [found.examples(c, examples) for c in range(found.k)]
        named = np.concatenate([np.full(len(r), c + 1) for c, r in enumerate(rows)]) if rows else np.zeros(0, int)
        every = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        spots = {n: [float(v) for v in found.points[:, a]] for a, n in enumerate(NAMES[: found.points.shape[1]])}
        return (
            self._clusters(),
            Table("examples", {"cluster": [int(n) for n in named]} | provenance(self.bank, every)),
            self._objects(),
            Table("points", provenance(self.bank, found.rows) | spots | {"cluster": [_name(c) for c in found.labels]}),
        )

    def figures(self) -> tuple[Figure, ...]:
        """The points by cluster, and the IoU over the plane where it is known."""
        found, clusters = self.found, [*range(self.found.k), -1]
        x = [float(v) for v in (*found.points[:, 0], *self.at[:, 0])]
        series: dict[str, list[Any]] = {}
        for cluster in clusters:
            inside = found.labels == cluster
            if inside.any():
                shown = [float(v) if i else None for v, i in zip(found.points[:, 1], inside, strict=True)]
                series[_title(cluster)] = shown + [None] * len(self.at)
        if len(self.at):
            series["this image"] = [None] * len(found.rows) + [float(v) for v in self.at[:, 1]]
        shares = [f"component {n + 1} ({share:.0%} of the variance)" for n, share in enumerate(found.axes.explained)]
        plane = (Figure("projection", "scatter", x, series, *shares[:2]),)
        if found.plane is None:
            return plane
        return (
            *plane,
            self._plane("IoU over the plane", found.plane.mean, shares),
            self._plane("IoU over the plane, of the nearest entries", found.plane.smooth, shares),
            self._plane("entries over the plane", np.where(found.plane.count, found.plane.count, np.nan), shares),
        )

    def text(self) -> str:
        """How many points, how much of them is seen, and which cluster is worst."""
        found, seen = self.found, float(self.found.axes.explained.sum())
        how = f"k-means finds {found.k} clusters"
        if found.how == "dbscan":
            alone = int((found.labels < 0).sum())
            how = (
                f"DBSCAN (eps {found.eps:.3g}) finds {plural(found.k, 'cluster')}, and "
                f"{plural(alone, 'entry that lies', 'entries that lie')} alone"
            )
        drawn = f" of {found.total}" if found.total > len(found.rows) else ""
        text = (
            f"{plural(len(found.rows), 'entry', 'entries')}{drawn} by layer {self.bank.info.layer}: "
            f"{plural(found.points.shape[1], 'component')} "
            f"show {seen:.0%} of the variance; {how}. "
        )
        means = [self._iou(found.labels == c) for c in range(found.k)]
        known = [c for c, value in enumerate(means) if value is not None]
        if not known:
            return text + "No IoU is known: build the bank with masks to see where the mask fails."
        worst = min(known, key=lambda c: means[c] or 0.0)
        return text + f"The lowest mean IoU is that of {_title(worst)}: {means[worst]:.2f}."

    def _plane(self, name: str, values: NDArray[np.float64], shares: list[str]) -> Figure:
        """A map over the plane; bins without a value are gaps."""
        x, y = self.found.plane.middles if self.found.plane else (np.zeros(0), np.zeros(0))
        rows = {f"{v:.4g}": [None if np.isnan(c) else float(c) for c in row] for v, row in zip(y, values, strict=True)}
        return Figure(name, "map", [float(v) for v in x], rows, *shares[:2])

    def _iou(self, inside: NDArray[np.bool_]) -> float | None:
        known = self.found.iou[inside & np.isfinite(self.found.iou)]
        return float(known.mean()) if known.size else None

    def _clusters(self) -> Table:
        columns: dict[str, list[Any]] = {
            n: [] for n in ("cluster", "entries", "mean IoU", "mostly predicted", "groups", "typical features", "row")
        }
        axes, found = self.found.axes, self.found
        standard = (self.bank.vectors(found.rows) - axes.mean) / axes.scale
        for cluster in [*range(found.k), *([-1] if (found.labels < 0).any() else [])]:
            inside = found.labels == cluster
            drawn = [e.predicted for e, i in zip(self.entries, inside, strict=True) if i]
            groups = {e.group for e, i in zip(self.entries, inside, strict=True) if i}
            row = int(found.examples(cluster, 1)[0])
            told = _typical(standard[inside].mean(0))
            values = (
                _name(cluster),
                len(drawn),
                self._iou(inside),
                max(sorted(set(drawn)), key=drawn.count),
                len(groups),
                told,
                row,
            )
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        return Table("clusters", columns)

    def _objects(self) -> Table:
        columns: dict[str, list[Any]] = {"object": list(range(1, len(self.at) + 1)), "class": list(self.seen.names)}
        columns |= {n: [float(v) for v in self.at[:, a]] for a, n in enumerate(NAMES[: self.at.shape[1]])}
        columns |= {"cluster": [_name(c) for c in self.own], "distance to its middle": [float(v) for v in self.off]}
        if self.found.plane is not None:
            columns["IoU of the nearest examples"] = [float(v) for v in self.likely]
        return Table("objects of this image", columns)


def _typical(mean: NDArray[np.float64]) -> str:
    """Features that stand out in a cluster, with their mean in standard deviations."""
    return ", ".join(f"{c} ({mean[c]:+.1f})" for c in np.argsort(-np.abs(mean), kind="stable")[:TYPICAL])


def _name(cluster: Any) -> int | None:
    """Clusters count from 1; a point in none has none."""
    return None if cluster < 0 else int(cluster) + 1


def _title(cluster: int) -> str:
    return "alone" if cluster < 0 else f"cluster {cluster + 1}"
