"""Exact nearest neighbours: a matrix product finds candidates, float64 decides among them.

Vectors come in batches, so that a bank may be larger than memory. The product in float32 has a bounded error; every
embedding that could be among the nearest within that bound is measured again in float64, difference by difference, so
that equal vectors have equal distances (and distance 0 to themselves) and stand in the order of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seglens.core.errors import BadParameter
from seglens.engine.features.entry import Metric, Neighbours

if TYPE_CHECKING:
    from seglens.engine.features.bank import FeatureBank

Floats = NDArray[np.float32]
Batch = tuple[NDArray[np.int64], Floats]
TOGETHER = 64  # queries that are compared with a batch at a time


def nearest(
    bank: FeatureBank,
    queries: ArrayLike,
    k: int,
    *,
    metric: Metric = "cosine",
    rows: Sequence[int] | NDArray[Any] | None = None,
    exclude_groups: Sequence[str] = (),
) -> Neighbours:
    """See :meth:`seglens.engine.features.FeatureBank.nearest`."""
    asked = _asked(bank, queries, k, metric)
    allowed, excluded, left_out = _allowed(bank, rows, exclude_groups)
    best = Best(asked, k, metric)
    for some, vectors in bank.batches():
        if allowed is None:
            best.look(some, vectors)
        elif allowed[some].any():
            best.look(some[allowed[some]], vectors[allowed[some]])
    return Neighbours(best.rows, best.distances.astype(np.float32), excluded, left_out)


class Best:
    """The nearest embeddings so far of some queries.

    Args:
        queries: (q, D) float32.
        k: how many.
        metric: see :data:`~seglens.engine.features.entry.Metric`.
    """

    def __init__(self, queries: Floats, k: int, metric: Metric) -> None:
        """Nothing has been looked at."""
        self.queries, self.metric = queries, metric
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.distances = np.full((len(queries), k), np.inf)
        self._products = _unit(queries).astype(np.float32) if metric == "cosine" else queries

    def look(self, rows: NDArray[np.int64], vectors: Floats, lengths: Floats | None = None) -> None:
        """Compare a batch: rows (n,), vectors (n, D), and their lengths (n,) if they are known."""
        if not len(rows):
            return
        if lengths is None:
            lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        for start in range(0, len(self.queries), TOGETHER):
            some = slice(start, start + TOGETHER)
            products = vectors @ self._products[some].T
            for query, product in enumerate(products.T, start):
                self._merge(query, rows, vectors, *self._about(query, product, lengths))

    def _about(self, query: int, product: Floats, lengths: Floats) -> tuple[Floats, float]:
        """What grows with the distance (n,), in float32, and how far it may be off."""
        rounding = (self.queries.shape[1] + 8) * 2.0**-23
        if self.metric == "cosine":
            return -product / np.maximum(lengths, np.finfo(np.float32).tiny), rounding
        own = self.queries[query]
        longest = float(lengths.max()) + float(np.sqrt(own @ own))
        return lengths * lengths - 2 * product, rounding * longest**2

    def _merge(self, query: int, rows: NDArray[np.int64], vectors: Floats, about: Floats, off: float) -> None:
        k = self.rows.shape[1]
        limit = np.inf
        if len(rows) > k:
            limit = float(np.partition(about, k - 1)[k - 1]) + 2 * off
        limit = min(limit, self._worst(query) + off)
        close = np.flatnonzero(about <= limit)
        distances = exact(vectors[close], self.queries[query], self.metric)
        every = np.concatenate([self.distances[query], distances])
        which = np.concatenate([self.rows[query], rows[close]])
        order = np.lexsort((which, every))[:k]
        self.distances[query], self.rows[query] = every[order], which[order]

    def _worst(self, query: int) -> float:
        """The distance to beat, in the terms of :meth:`_about`."""
        worst = float(self.distances[query, -1])
        if self.metric == "cosine":
            return worst - 1
        own = self.queries[query].astype(np.float64)
        return worst**2 - float(own @ own)


def exact(vectors: Floats, query: Floats, metric: Metric) -> NDArray[np.float64]:
    """Distances (n,) of vectors (n, D) from a query (D,), in float64."""
    a, b = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "euclidean":
        return np.asarray(np.sqrt(((a - b) ** 2).sum(1)))
    # half the square of the difference of unit vectors: exactly 0 for equal ones
    near = 0.5 * ((_unit(a) - _unit(b[None])) ** 2).sum(1)
    return np.where((a != 0).any(1) & (b != 0).any(), near, 1.0)


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide**2).sum(1, keepdims=True))
    return np.asarray(wide / np.where(lengths > 0, lengths, 1))


def _asked(bank: FeatureBank, queries: ArrayLike, k: int, metric: str) -> Floats:
    given = np.atleast_2d(np.asarray(queries, np.float32))
    if given.ndim != 2 or given.shape[1] != bank.info.dims:
        raise BadParameter(
            f"A query of shape {np.shape(queries)} was given; the bank holds vectors of {bank.info.dims} numbers.",
            fix=f"Give vectors of layer {bank.info.layer}, (queries, {bank.info.dims}).",
        )
    if k < 1:
        raise BadParameter(f"k={k} neighbours were asked for.", fix="Ask for at least 1.")
    if metric not in ("cosine", "euclidean"):
        raise BadParameter(f"There is no metric {metric!r}.", fix="Use cosine or euclidean.")
    return bank.stored(given).astype(np.float32)


def _allowed(
    bank: FeatureBank, rows: Sequence[int] | NDArray[Any] | None, groups: Iterable[str]
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...], int]:
    """Which rows may be answered (N,) or ``None`` for all; which groups were left out, and how many rows."""
    known = bank.table.groups()
    excluded = tuple(g for g in dict.fromkeys(groups) if g in known)
    if rows is None and not excluded:
        return None, (), 0
    allowed = np.full(len(bank), rows is None)
    if rows is not None:
        bank.check_rows(rows)
        allowed[np.asarray(rows, np.int64)] = True
    before = int(allowed.sum())
    for group in excluded:
        allowed[bank.rows(group=group)] = False
    return allowed, excluded, before - int(allowed.sum())
