"""Where concepts come from: clusters of the bank, rows that a person chose, regions that a person painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.features import FeatureBank
from seglens.engine.features.concepts import (
    LEAST,
    Concept,
    concept_of_rows,
    find_concept,
    places_of,
    random_concept,
)
from seglens.engine.features.projection import MOST, project
from seglens.methods.prototype._bank import bank_of

CHANCE = 3  # random vectors for each random set of a concept: their extremes are what concepts have to exceed
PLACES = 20_000  # of a painted image that random vectors are drawn from


@dataclass(frozen=True, eq=False)
class Source:
    """Concepts of one kind, with the random vectors that they are compared with.

    Args:
        kind: where they come from, in a word.
        concepts: the concepts.
        chance: random vectors among the same embeddings.
        rows: rows of the bank that each is of; empty for painted ones.
    """

    kind: str
    concepts: list[Concept]
    chance: Concept
    rows: list[NDArray[np.int64]]


def discover(
    case: Case, clusters: Literal["kmeans", "dbscan"], k: int | None, rows: str | None, repeats: int
) -> list[Source]:
    """All concepts of a question: painted ones and chosen rows if there are any, else clusters.

    Raises:
        MissingNeed: too few embeddings for a concept.
        BadParameter: rows that are none.
    """
    found = []
    if case.annotation is not None:
        found.append(_painted(case, repeats))
    if rows is not None:
        found.append(_of_rows(case, [("chosen rows", parse_rows(rows, LEAST))], "rows", None, repeats))
    return found or [_clusters(case, clusters, k, repeats)]


def parse_rows(text: str, least: int = 1) -> NDArray[np.int64]:
    """Row numbers from ``3,5,8-20``; ascending, each once.

    Raises:
        BadParameter: something else stands there.
        MissingNeed: fewer than ``least``.
    """
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadParameter(f"{text!r} are no rows.", fix="Write rows of the bank such as 3,5,8-20.")
        found |= set(range(int(first), int(last or first) + 1))
    if len(found) < least:
        raise MissingNeed(
            f"A concept needs {least} rows or more; {plural(len(found), 'was', 'were')} given.", fix="Choose more rows."
        )
    return np.array(sorted(found), np.int64)


def _clusters(case: Case, how: Literal["kmeans", "dbscan"], k: int | None, repeats: int) -> Source:
    bank = bank_of(case)
    found = project(bank, clusters=how, k=k, seed=case.run.seed, run=case.run)
    named = [(f"cluster {c + 1}", found.rows[found.labels == c]) for c in range(found.k)]
    large = [(name, rows) for name, rows in named if LEAST <= len(rows) <= len(found.rows) - LEAST]
    if len(large) < len(named):
        case.run.note(f"{len(named) - len(large)} clusters are too small, or all there is, to make a concept.")
    if not large:
        raise MissingNeed(
            f"No cluster of the bank has between {LEAST} entries and all but {LEAST}.",
            fix="Add images to the bank, set another number of clusters (--k), or choose rows (--rows).",
        )
    return _of_rows(case, large, "clusters", found.rows, repeats)


def _of_rows(
    case: Case, named: list[tuple[str, NDArray[np.int64]]], kind: str, among: NDArray[np.int64] | None, repeats: int
) -> Source:
    bank, seed = bank_of(case), case.run.seed
    concepts = []
    for done, (name, rows) in enumerate(named, 1):
        concepts.append(
            concept_of_rows(bank, rows, name=name, among=among, repeats=repeats, seed=seed, run=case.run)
        )  # fmt: skip
        case.run.progress(done, len(named), "concepts")
    every, size = bank.vectors(_some(bank, among, seed)), min(c.drawn for c in concepts)
    chance = random_concept(every, repeats=CHANCE * repeats, size=size, seed=seed, run=case.run)
    return Source(kind, concepts, chance, [rows for _, rows in named])


def _some(bank: FeatureBank, among: NDArray[np.int64] | None, seed: int) -> NDArray[np.int64]:
    rows = np.arange(len(bank)) if among is None else among
    return rows if len(rows) <= MOST else np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))


def _painted(case: Case, repeats: int) -> Source:
    drawn: NDArray[Any] = np.asarray(case.annotation)
    layer, seed = bank_of(case).info.layer, case.run.seed
    numbers = [n for n in np.unique(drawn) if n > 0]
    if not numbers:
        raise MissingNeed("Nothing is painted in the annotation.", fix="Paint a region for each concept.")
    concepts, every = [], places_of(case, layer, np.zeros(case.shape))[1]
    for done, number in enumerate(numbers, 1):
        inside, outside = places_of(case, layer, drawn == number, drawn == 0)
        name = f"painted {number}"
        concepts.append(find_concept(name, inside, outside, repeats=repeats, seed=seed, run=case.run))
        case.run.progress(done, len(numbers), "concepts")
    if len(every) > PLACES:
        every = every[np.random.default_rng(seed).choice(len(every), PLACES, replace=False)]
    chance = random_concept(
        every, repeats=CHANCE * repeats, size=min(c.drawn for c in concepts), seed=seed, run=case.run
    )
    return Source("painted", concepts, chance, [])
