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
    from seglens.engine.features.index import By

Floats = NDArray[np.float32]
Batch = tuple[NDArray[np.int64], Floats]
BATCH = 2**24  # bytes of embeddings, in single precision, that are compared at a time
LARGEST = float(np.finfo(np.float32).max)
FEW = 0.25  # share of a batch up to which it is cheaper to take out what is wanted
TOGETHER = 64  # queries that are compared with a batch at a time


def nearest(
    bank: FeatureBank,
    queries: ArrayLike,
    k: int,
    *,
    metric: Metric = "cosine",
    rows: Sequence[int] | NDArray[Any] | None = None,
    exclude_groups: Sequence[str] = (),
    by: By = "auto",
) -> Neighbours:
    """See :meth:`seglens.engine.features.FeatureBank.nearest`."""
    asked = _asked(bank, queries, k, metric)
    allowed, excluded, left_out = _allowed(bank, rows, exclude_groups)
    best = Best(asked, k, metric)
    index = bank.index()
    if index is not None:
        index.look(best, allowed, by)
    else:
        for some, vectors in bank.batches(rows_of(bank.info.dims), only=allowed):
            best.look(Lot(some, vectors), None if allowed is None else allowed[some])
    return Neighbours(best.rows, best.distances.astype(np.float32), excluded, left_out)


class Lot:
    """Embeddings that are compared together.

    Args:
        rows: (n,).
        vectors: (n, D) float32.
    """

    def __init__(self, rows: NDArray[np.int64], vectors: Floats) -> None:
        """Measure their lengths once."""
        self.rows, self.vectors = rows, vectors
        self.squares: Floats = np.einsum("nd,nd->n", vectors, vectors)
        lengths = np.sqrt(self.squares)
        self.longest = float(lengths.max(initial=0))
        # a vector of zeros has cosine 0 with everything
        self.opposite: Floats = np.divide(-1, lengths, out=np.zeros_like(lengths), where=lengths > 0)


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
        self.products = _unit(queries).astype(np.float32) if metric == "cosine" else queries

    def look(self, lot: Lot, only: NDArray[np.bool_] | None = None) -> None:
        """Compare some embeddings; ``only`` (n,) says which of them may be answered."""
        if only is not None and only.sum() <= FEW * len(only):
            lot, only = Lot(lot.rows[only], lot.vectors[only]), None
        if not len(lot.rows):
            return
        for start in range(0, len(self.queries), TOGETHER):
            some = self.products[start : start + TOGETHER]
            # a matrix of one row is multiplied at a third of the speed
            products = (lot.vectors @ some[0])[None] if len(some) == 1 else some @ lot.vectors.T
            for query, product in enumerate(products, start):
                about = self._about(product, lot)
                if only is not None:
                    about[~only] = np.inf
                self._merge(query, lot, about)

    def _about(self, product: Floats, lot: Lot) -> Floats:
        """What grows with the distance (n,), in float32; the product is written over."""
        if self.metric == "cosine":
            product *= lot.opposite
        else:
            product *= -2
            product += lot.squares
        return product

    def _off(self, query: int, longest: float) -> float:
        rounding = (self.queries.shape[1] + 16) * 2.0**-23
        return rounding if self.metric == "cosine" else float(rounding * (longest + self._length(query)) ** 2)

    def _length(self, query: int) -> float:
        return float(np.linalg.norm(self.queries[query].astype(np.float64)))

    def _merge(self, query: int, lot: Lot, about: Floats) -> None:
        k, off = self.rows.shape[1], self._off(query, lot.longest)
        close = np.flatnonzero(about <= min(self._worst(query) + off, LARGEST))
        if len(close) > k:
            best = about[close]
            close = close[best <= float(np.partition(best, k - 1)[k - 1]) + 2 * off]
        if len(close):
            self.offer(query, lot.rows[close], exact(lot.vectors[close], self.queries[query], self.metric))

    def _worst(self, query: int) -> float:
        """The distance to beat, in the terms of :meth:`_about`."""
        worst = float(self.distances[query, -1])
        return worst - 1 if self.metric == "cosine" else worst**2 - self._length(query) ** 2

    def offer(self, query: int, rows: NDArray[np.int64], distances: NDArray[np.float64]) -> None:
        """Keep what is nearer than what there is: rows (n,) and their exact distances (n,)."""
        every = np.concatenate([self.distances[query], distances])
        which = np.concatenate([self.rows[query], rows])
        order = np.lexsort((which, every))[: self.rows.shape[1]]
        self.distances[query], self.rows[query] = every[order], which[order]

    def certain(self, query: int, beyond: float, longest: float) -> bool:
        """Whether nothing can be nearer among embeddings whose distance in single precision is ``beyond`` or more."""
        worst, off = float(self.distances[query, -1]), self._off(query, longest)
        return beyond - worst > off if self.metric == "cosine" else beyond**2 - worst**2 > off

    def part(self, which: NDArray[np.int64]) -> Best:
        """Some of the queries, with nothing looked at."""
        return Best(self.queries[which], self.rows.shape[1], self.metric)

    def take(self, which: NDArray[np.int64], part: Best) -> None:
        """What was found for some of the queries."""
        self.rows[which], self.distances[which] = part.rows, part.distances


def rows_of(dims: int) -> int:
    """How many embeddings are compared at a time."""
    return max(1, BATCH // (4 * dims))


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
    known, groups = bank.table.groups(), [groups] if isinstance(groups, str) else groups
    excluded = tuple(g for g in dict.fromkeys(groups) if g in known)
    if rows is None and not excluded:
        return None, (), 0
    allowed = np.full(len(bank), rows is None)
    if rows is not None:
        bank.check_rows(rows)
        allowed[np.asarray(rows, np.int64)] = True
    before = int(allowed.sum())
    for group in excluded:
        bank.table.mark(group, allowed)
    return allowed, excluded, before - int(allowed.sum())
