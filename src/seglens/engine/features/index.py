"""A bank's embeddings in memory, for the next search: while they fit, they are read once and kept."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import MissingNeed
from seglens.engine.features.search import Best, Lot, exact, rows_of

if TYPE_CHECKING:
    from seglens.engine.features.bank import FeatureBank

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
By = Literal["auto", "numpy", "sklearn", "faiss"]
MORE = 16  # candidates beyond those asked for: rounding may order them otherwise
WHERE = {"sklearn": "sklearn.neighbors", "faiss": "faiss"}


class Index:
    """Embeddings in single precision.

    Args:
        vectors: (N, D).
        drops: how often the bank has forgotten some.
    """

    def __init__(self, vectors: Floats, drops: int = 0) -> None:
        """Measure their lengths once."""
        self.vectors, self.drops = vectors, drops
        rows, size = np.arange(len(vectors)), rows_of(vectors.shape[1])
        self.lots = [Lot(rows[i : i + size], vectors[i : i + size]) for i in range(0, len(vectors), size)]
        self._made: dict[tuple[str, str], Any] = {}

    @classmethod
    def of(cls, bank: FeatureBank, before: Index | None, memory: int) -> Index | None:
        """The index of all that is in a bank now; what was there before is not read again.

        Args:
            bank: the bank.
            before: its index as it was.
            memory: bytes that the index may take; ``None`` is answered if they are too few.
        """
        total = len(bank)
        if total * (bank.info.dims + 1) * 4 > memory:
            return None
        drops = bank.table.drops()
        if before is not None and (before.drops != drops or len(before.vectors) > total):
            before = None
        known = 0 if before is None else len(before.vectors)
        if before is not None and known == total:
            return before
        vectors = np.empty((total, bank.info.dims), np.float32)
        if before is not None:
            vectors[:known] = before.vectors
        size = rows_of(bank.info.dims)
        for first in range(known, total, size):
            vectors[first : first + size] = bank.read(first, min(total, first + size))
        return cls(vectors, drops)

    def look(self, best: Best, allowed: NDArray[np.bool_] | None, by: By) -> None:
        """Find the nearest of all queries, by the library that is wanted.

        Raises:
            MissingNeed: it is not installed.
        """
        if by in WHERE and not installed(by):
            raise MissingNeed(f"{by} is not installed.", fix=f"Install it (pip install {by}-cpu), or leave it out.")
        if by == "auto":
            by = "faiss" if allowed is None and installed("faiss") else "numpy"
        left = np.arange(len(best.queries))
        if by != "numpy":
            left = self._ask(best, allowed, by)
        if not len(left):
            return
        part = best.part(left)
        for lot in self.lots:
            part.look(lot, None if allowed is None else allowed[lot.rows[0] : lot.rows[-1] + 1])
        best.take(left, part)

    def _ask(self, best: Best, allowed: NDArray[np.bool_] | None, by: str) -> Rows:
        """Candidates from a library, measured again; which queries have ties so many that it cannot be sure."""
        among = None if allowed is None else np.flatnonzero(allowed)
        count = len(self.vectors) if among is None else len(among)
        wanted = min(count, best.rows.shape[1] + MORE)
        if not wanted:
            return np.zeros(0, np.int64)
        about, found = self._candidates(best, among, wanted, by)
        rows = found if among is None else among[found]
        unsure, longest = [], max(lot.longest for lot in self.lots)
        for query, candidates in enumerate(rows):
            candidates = np.sort(candidates)
            best.offer(query, candidates, exact(self.vectors[candidates], best.queries[query], best.metric))
            if wanted < count and not best.certain(query, float(about[query].max()), longest):
                unsure.append(query)
        return np.asarray(unsure, np.int64)

    def _candidates(self, best: Best, among: Rows | None, wanted: int, by: str) -> tuple[Floats, Rows]:
        """Distances and places (q, wanted), as far as single precision tells."""
        key = (by, best.metric)
        tool = self._made.get(key) if among is None else None
        if tool is None:
            vectors = self.vectors if among is None else self.vectors[among]
            tool = _sklearn(vectors, best.metric) if by == "sklearn" else _faiss(vectors, best.metric)
            if among is None:
                self._made[key] = tool
        if by == "sklearn":
            about, found = tool.kneighbors(best.queries, wanted)
            return about, found
        products, found = tool.search(np.ascontiguousarray(best.products), wanted)
        return (1 - products if best.metric == "cosine" else np.sqrt(np.maximum(products, 0))), found


@cache
def installed(library: str) -> bool:
    """Whether a library is there."""
    try:
        importlib.import_module(WHERE[library])
    except ImportError:
        return False
    return True


def _sklearn(vectors: Floats, metric: str) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(algorithm="brute", metric=metric).fit(vectors)


def _faiss(vectors: Floats, metric: str) -> Any:
    faiss: Any = importlib.import_module("faiss")
    if metric == "euclidean":
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        return index
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors * -Lot(np.arange(len(vectors)), vectors).opposite[:, None])
    return index
