"""Looking the neighbours of regions up in a bank: classes, votes, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import MissingNeed
from seglens.core.explanation import Figure, Table
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.features import Entry, FeatureBank, Neighbours
from seglens.methods.prototype._bank import Seen, fitting, provenance

SAME = 1e-3  # distance below which an entry at the same place is the asked region itself


@dataclass(frozen=True, eq=False)
class Lookup:
    """What is searched.

    Args:
        case: the question.
        bank: where.
        metric: how far is far.
        own: leave out the group of the asked image.
        pattern: leave out groups that hold this.
    """

    case: Case
    bank: FeatureBank
    metric: Literal["cosine", "euclidean"]
    own: bool
    pattern: str | None

    @cached_property
    def excluded(self) -> tuple[str, ...]:
        """Groups that are left out."""
        found = self.bank.groups_of(self.case.image) if self.own else ()
        if self.own and not found:
            self.case.run.note("The asked image belongs to no group of the bank, so none is left out for it.")
        if self.pattern:
            found += fitting(self.bank, self.pattern)
        return tuple(dict.fromkeys(found))

    def contrast(self, seen: Seen, k: int) -> Neighbours:
        """The neighbours of the asked region of another class; an entry of the region itself is none of them."""
        target = self.case.target
        found = self.nearest(seen.region[None], k + 1, other_than=target.name)
        here = found.rows[0] >= 0
        entries = self.bank.entries(found.rows[0][here])
        own = [self.itself(e, float(d), target.region) for e, d in zip(entries, found.distances[0][here], strict=True)]
        kept = [n for n in range(k + 1) if n >= len(own) or not own[n]][:k]
        return Neighbours(found.rows[:, kept], found.distances[:, kept], found.excluded, found.left_out)

    def nearest(self, queries: NDArray[np.float32], k: int, other_than: str | None = None) -> Neighbours:
        """The neighbours of embeddings (q, D), of any class or of all but one.

        Raises:
            MissingNeed: every example is left out.
        """
        self.case.run.check()
        rows = None if other_than is None else self._others(other_than)
        found = self.bank.nearest(queries, k, metric=self.metric, rows=rows, exclude_groups=self.excluded)
        if other_than is None and len(queries) and (found.rows < 0).all():
            raise MissingNeed(
                "All examples of the bank are left out.", fix="Leave out fewer groups, or add images to the bank."
            )
        return found

    def of_objects(self, seen: Seen, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For every object the distance to the nearest example that is not itself, and its vote entropy (n,) each."""
        far, entropy = np.zeros(len(seen.names)), np.zeros(len(seen.names))
        if not len(seen.names):
            return far, entropy
        found = self.nearest(seen.vectors, k + 1)
        for number, (rows, distances) in enumerate(zip(found.rows, found.distances, strict=True)):
            here = rows >= 0
            entries = self.bank.entries(rows[here])
            inside = seen.numbers == number + 1
            kept = [(e, d) for e, d in zip(entries, distances[here], strict=True) if not self.itself(e, d, inside)][:k]
            far[number] = kept[0][1] if kept else 0.0
            entropy[number] = vote_entropy([class_of(e) for e, _ in kept])
            self.case.run.progress(number + 1, len(far), "objects")
        return far, entropy

    def itself(self, entry: Entry, distance: float, region: NDArray[np.bool_]) -> bool:
        """Whether an entry is the asked region: of this very image, at a pixel of the region, with its features."""
        inside = all(0 <= p < n for p, n in zip(entry.position, region.shape, strict=True))
        return entry.image == self._pixels and distance < SAME and inside and bool(region[entry.position])

    @cached_property
    def _pixels(self) -> str:
        return self.case.image.fingerprint()

    def _others(self, name: str) -> NDArray[np.int64]:
        """Rows of any other class."""
        classes, bank = self.bank.info.classes, self.bank
        known = [bank.rows(truth=c) for c in classes]
        drawn = [np.setdiff1d(bank.rows(predicted=c), np.concatenate(known)) for c in classes if c != name]
        true = [rows for c, rows in zip(classes, known, strict=True) if c != name]
        return np.unique(np.concatenate([*true, *drawn])) if len(classes) > 1 else np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Told:
    """Neighbours of the asked region in tables, a figure and words.

    Args:
        lookup: where they were looked for.
        near: of any class.
        contrast: of another class.
    """

    lookup: Lookup
    near: Neighbours
    contrast: Neighbours

    @cached_property
    def entries(self) -> list[Entry]:
        """The nearest."""
        return self.lookup.bank.entries(self.near.rows[0][self.near.rows[0] >= 0])

    def tables(self) -> tuple[Table, ...]:
        """The nearest, those of another class, and what was left out, if anything was."""
        tables = (self._table("nearest examples", self.near), self._table("of another class", self.contrast))
        if not self.near.excluded:
            return tables
        counts = [len(self.lookup.bank.rows(group=g)) for g in self.near.excluded]
        return (*tables, Table("left out", {"group": list(self.near.excluded), "entries": counts}))

    def figure(self) -> Figure:
        """Distances of both lists by rank."""
        rank = list(range(1, self.near.rows.shape[1] + 1))
        series: dict[str, list[Any]] = {}
        for name, found in (("nearest", self.near), ("of another class", self.contrast)):
            series[name] = [
                float(d) if r >= 0 else None for r, d in zip(found.rows[0], found.distances[0], strict=True)
            ]
        return Figure("distances", "line", rank, series, "rank", f"{self.lookup.metric} distance")

    def text(self) -> str:
        """The votes, the margin to another class, and what was left out."""
        own = self._itself(self.near)
        votes = [class_of(e) for e, itself in zip(self.entries, own, strict=True) if not itself]
        counts = {v: votes.count(v) for v in sorted(dict.fromkeys(votes), key=votes.count, reverse=True)}
        told = ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"
        other = "other " if any(own) else ""
        text = f"Of the {plural(len(votes), f'nearest {other}example')}: {told} "
        text += f"(vote entropy {vote_entropy(votes):.2f} bit). "
        text += f"The nearest is {self.near.distances[0, 0]:.3g} away"
        rows = self.contrast.rows[0] >= 0
        text += f", the nearest of another class {self.contrast.distances[0, 0]:.3g}. " if rows.any() else ". "
        if any(own):
            text += "The asked region is in the bank, and is its own nearest example; it has no vote. "
        if self.near.excluded:
            groups = ", ".join(self.near.excluded[:5]) + (", …" if len(self.near.excluded) > 5 else "")
            text += f"Left out: {plural(self.near.left_out, 'entry', 'entries')} of {groups}."
        return text.strip()

    def _itself(self, found: Neighbours) -> list[bool]:
        region = self.lookup.case.target.region
        here = found.rows[0] >= 0
        entries = self.lookup.bank.entries(found.rows[0][here])
        distances = found.distances[0][here]
        return [self.lookup.itself(e, float(d), region) for e, d in zip(entries, distances, strict=True)]

    def _table(self, name: str, found: Neighbours) -> Table:
        here = found.rows[0] >= 0
        columns: dict[str, list[Any]] = {"rank": list(range(1, int(here.sum()) + 1))}
        columns |= provenance(self.lookup.bank, found.rows[0][here])
        columns |= {"distance": [float(d) for d in found.distances[0][here]], "itself": self._itself(found)}
        return Table(name, columns)


def class_of(entry: Entry) -> str:
    """The class of an entry: that of the mask where one is known, else the predicted one."""
    return entry.predicted if entry.truth is None else entry.truth


def vote_entropy(votes: list[str]) -> float:
    """Entropy of the shares of votes, in bits."""
    shares = np.array([votes.count(v) for v in dict.fromkeys(votes)], float) / max(1, len(votes))
    return float(max(0.0, -(shares * np.log2(shares)).sum())) if len(votes) else 0.0
