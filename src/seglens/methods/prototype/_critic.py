"""Prototypes and criticisms among embeddings: chosen, told as tables, and asked about new embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import MissingNeed
from seglens.core.explanation import Figure, Table
from seglens.core.plural import plural
from seglens.core.run import Run
from seglens.engine.case import Case
from seglens.engine.features import FeatureBank
from seglens.methods.prototype import _mmd as mmd
from seglens.methods.prototype._bank import bank_of, fitting, provenance


@dataclass(frozen=True, eq=False)
class Critic:
    """Chosen among n embeddings.

    Args:
        vectors: (n, D).
        gamma: width of the kernel.
        kernel: (n, n).
        prototypes: places among the n, in the order chosen.
        criticisms: the same.
        far: places of those farthest from every prototype.
        distances: of every embedding to the nearest prototype (n,).
    """

    vectors: NDArray[np.float32]
    gamma: float
    kernel: mmd.Floats
    prototypes: list[int]
    criticisms: list[int]
    far: list[int]
    distances: mmd.Floats

    @classmethod
    def of(
        cls,
        vectors: NDArray[np.float32],
        gamma: float | None,
        prototypes: int,
        criticisms: int,
        diverse: bool,
        run: Run,
    ) -> Critic:
        """Choose among embeddings (n, D)."""
        run.progress(0, 3, "distances between examples")
        squared = mmd.squared_distances(vectors, vectors)
        gamma = mmd.gamma_of(squared) if gamma is None else gamma
        kernel = np.exp(-gamma * squared)
        run.progress(1, 3, "prototypes")
        chosen = mmd.prototypes(kernel, prototypes)
        run.progress(2, 3, "criticisms")
        found = mmd.criticisms(kernel, chosen, criticisms, diverse=diverse)
        distances = np.sqrt(squared[:, chosen].min(1))
        far = [int(i) for i in np.argsort(-distances, kind="stable") if distances[i] > 0][:criticisms]
        run.progress(3, 3, "criticisms")
        return cls(vectors, gamma, kernel, chosen, found, far, distances)

    def nearest(self, vectors: NDArray[np.float32]) -> tuple[mmd.Floats, NDArray[np.int64]]:
        """Distance of new embeddings (q, D) to the nearest prototype (q,), and its place from 0 (q,)."""
        squared = mmd.squared_distances(vectors, self.vectors[self.prototypes])
        return np.sqrt(squared.min(1)), squared.argmin(1)

    def witness_at(self, vectors: NDArray[np.float32]) -> mmd.Floats:
        """The witness at new embeddings (q, D): above 0 where the prototypes have too little, below where too much."""
        near = np.exp(-self.gamma * mmd.squared_distances(vectors, self.vectors))
        found: mmd.Floats = near.mean(1) - near[:, self.prototypes].mean(1)
        return found

    def tables(self, bank: FeatureBank, rows: NDArray[np.int64]) -> tuple[Table, ...]:
        """The three lists, each row with its number in the bank."""
        home = mmd.squared_distances(self.vectors, self.vectors[self.prototypes]).argmin(1)
        witness = mmd.witness(self.kernel, self.prototypes)
        stand = {"stands for": [int((home == n).sum()) for n in range(len(self.prototypes))]}
        crowd: dict[str, list[Any]] = {
            "witness": [float(witness[i]) for i in self.criticisms],
            "prototypes": ["too few" if witness[i] > 0 else "too many" for i in self.criticisms],
        }
        far: dict[str, list[Any]] = {
            "distance": [float(self.distances[i]) for i in self.far],
            "nearest prototype": [int(home[i]) + 1 for i in self.far],
        }
        return (
            _table("prototypes", bank, rows, self.prototypes, stand),
            _table("badly represented density", bank, rows, self.criticisms, crowd),
            _table("far from every prototype", bank, rows, self.far, far),
        )

    def figures(self) -> tuple[Figure, ...]:
        """How J grows with the prototypes."""
        numbers = list(range(1, len(self.prototypes) + 1))
        grown = [mmd.value(self.kernel, self.prototypes[:n]) for n in numbers]
        most = float(self.kernel.mean())
        series: dict[str, list[Any]] = {"J": grown, "all examples": [most] * len(numbers)}
        return (Figure("J over prototypes", "line", numbers, series, "prototypes", "J"),)

    def text(self, count: int, of: str, case: Case) -> str:
        """What was chosen of how many, and how much of it the prototypes say."""
        what = f"entries predicted as {case.target.name}" if of == "class" else "entries"
        share = mmd.value(self.kernel, self.prototypes) / float(self.kernel.mean())
        return (
            f"{len(self.prototypes)} prototypes of {count} {what} (γ {self.gamma:.3g}) reach {share:.1%} of the "
            f"largest J. The {len(self.criticisms)} criticisms are where their density is badly represented; the "
            f"{len(self.far)} entries far from every prototype are listed by themselves."
        )


def chosen_rows(case: Case, name: str | None, pattern: str | None, most: int) -> NDArray[np.int64]:
    """Rows of the bank to choose among, ascending.

    Args:
        case: the question; its seed draws where there are too many.
        name: only those predicted as this class.
        pattern: only groups that hold this.
        most: how many at most.

    Raises:
        MissingNeed: fewer than two.
        BadParameter: no group fits.
    """
    bank = bank_of(case)
    rows = np.arange(len(bank)) if name is None else bank.rows(predicted=name)
    if pattern:
        inside = [bank.rows(group=group) for group in fitting(bank, pattern)]
        rows = np.intersect1d(rows, np.concatenate(inside))
    if len(rows) < 2:
        what = plural(len(rows), "entry", "entries") + (f" predicted as {name}" if name else "")
        raise MissingNeed(
            f"The bank has {what} to choose among; 2 are the least.",
            fix="Ask another class, leave the groups free, or use --of all.",
        )
    if len(rows) > most:
        case.run.note(f"{most} of {len(rows)} entries were drawn by the seed.")
        rows = np.sort(np.random.default_rng(case.run.seed).choice(rows, most, replace=False))
    return rows


def _table(
    name: str, bank: FeatureBank, rows: NDArray[np.int64], places: Sequence[int], more: dict[str, list[Any]]
) -> Table:
    return Table(name, {"rank": list(range(1, len(places) + 1))} | provenance(bank, rows[list(places)]) | more)
