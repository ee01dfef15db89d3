"""Concepts as directions in a layer's features, how a target follows them, and whether that is more than chance.

A concept is a set of embeddings. Linear classifiers tell it from random others; the unit normal of each is a concept
activation vector v (card B/R7). The sensitivity of a target T is the derivative of T when v is added to the layer's
answer everywhere, S = Σ_p ∂T/∂A(p) · v. The score is the share of examples with S > 0. It is measured with one vector
per random set, and compared with vectors that tell one random set from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression

from seglens.core.errors import ImageMismatch, MissingNeed
from seglens.core.run import Run

if TYPE_CHECKING:
    from seglens.engine.case import Case
    from seglens.engine.features import FeatureBank

Floats = NDArray[np.float64]
REPEATS = 20  # random sets
SIZE = 100  # embeddings on either side of a classifier, at most
MOST = 3000  # other rows of a bank that random sets are drawn from
LEAST = 6  # embeddings that make a concept
HELD_OUT = 3  # one in so many is kept to measure the classifier
ALPHA = 0.05
STRENGTH = 0.01  # weak fits point along the difference of means; strong ones at the few that lie at the border


@dataclass(frozen=True, eq=False)
class Concept:
    """A direction, measured against several random sets.

    Args:
        name: shown to people.
        directions: unit vectors that point to the concept, one per random set (R, D).
        offsets: what lies on the concept's side has ``x @ direction > offset`` (R,).
        accuracies: share of held-out embeddings on the right side, half by chance (R,).
        gaps: how far the concept lies from the random set along the direction (R,).
        count: how many embeddings make the concept.
        drawn: how many of them each classifier was given; chance has to be measured with as few.
    """

    name: str
    directions: Floats
    offsets: Floats
    accuracies: Floats
    gaps: Floats
    count: int
    drawn: int

    @property
    def vector(self) -> Floats:
        """The mean direction, of length 1 (D,); zero where they cancel out."""
        mean: Floats = self.directions.mean(0)
        length = float(np.linalg.norm(mean))
        return mean / length if length > 0 else mean

    @property
    def offset(self) -> float:
        """Where the mean direction's two sides meet."""
        length = float(np.linalg.norm(self.directions.mean(0)))
        return float(self.offsets.mean()) / length if length > 0 else 0.0

    @property
    def accuracy(self) -> float:
        """Mean accuracy on what was held out."""
        return float(self.accuracies.mean())


@dataclass(frozen=True)
class Verdict:
    """How a target follows a concept, and whether that is more than chance.

    Args:
        name: of the concept.
        score: share of examples with a positive sensitivity, mean over the random sets.
        error: standard error of the score.
        p: of Welch's t-test of the scores against those of random directions, times the number of concepts
            (Bonferroni).
        sensitivity: mean of S over examples and random sets.
        effect: by how much the target would change, to first order, if the features went all the way from the random
            sets to the concept: the mean of S times that gap.
        chance: 95 % of random sets of that size, taken for concepts, have an effect of a smaller size.
    """

    name: str
    score: float
    error: float
    p: float
    sensitivity: float
    effect: float
    chance: float

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05 and the effect above chance.

        The scores of one concept share its embeddings, so a slight lean to one side makes p small by itself: in
        tests the t-test alone found about half of all random sets significant.
        """
        return self.p < ALPHA and abs(self.effect) > self.chance


def find_concept(
    name: str,
    inside: NDArray[np.floating],
    outside: NDArray[np.floating],
    *,
    repeats: int = REPEATS,
    size: int = SIZE,
    seed: int = 0,
    run: Run | None = None,
) -> Concept:
    """Tell a set of embeddings from others.

    Args:
        name: shown to people.
        inside: the concept's embeddings (n, D), at least 6.
        outside: where random sets are drawn from (m, D), at least 6.
        repeats: how many random sets.
        size: how many embeddings are taken from either side.
        seed: of the draws.
        run: cancel.

    Raises:
        MissingNeed: too few embeddings.
    """
    for text, values in (("in", inside), ("beside", outside)):
        if len(values) < LEAST:
            raise MissingNeed(
                f"A concept needs {LEAST} embeddings or more on either side; {len(values)} are {text} {name}.",
                fix="Choose more rows, paint a larger region, or ask for fewer clusters.",
            )
    rng = np.random.default_rng(seed)
    count = min(size, len(inside), len(outside))
    found = []
    for _ in range(repeats):
        if run is not None:
            run.check()
        found.append(_classified(_drawn(inside, count, rng), _drawn(outside, count, rng)))
    return _concept(name, found, len(inside), count)


def random_concept(
    vectors: NDArray[np.floating],
    *,
    repeats: int = REPEATS,
    size: int = SIZE,
    seed: int = 0,
    run: Run | None = None,
) -> Concept:
    """Directions that tell random sets of (n, D) embeddings from each other: what chance looks like.

    Args:
        vectors: (n, D).
        repeats: how many directions.
        size: how many embeddings in each set: as many as the smallest concept was given.
        seed: of the draws.
        run: cancel.

    Raises:
        MissingNeed: too few embeddings.
    """
    if len(vectors) < 2 * LEAST:
        raise MissingNeed(
            f"Concepts need {2 * LEAST} embeddings or more, and there are {len(vectors)}.",
            fix="Add images to the bank.",
        )
    rng = np.random.default_rng([seed, 1])
    count = min(size, len(vectors) // 2)
    found = []
    for _ in range(repeats):
        if run is not None:
            run.check()
        both = _drawn(vectors, 2 * count, rng)
        found.append(_classified(both[:count], both[count:]))
    return _concept("random", found, len(vectors), count)


def concept_of_rows(
    bank: FeatureBank,
    rows: NDArray[Any],
    *,
    name: str = "chosen rows",
    among: NDArray[Any] | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
    run: Run | None = None,
) -> Concept:
    """Rows of a bank (a cluster, a lasso in the projection) as a concept, against its other rows.

    Args:
        bank: where they are.
        rows: those of the concept.
        name: shown to people.
        among: the rows that random sets are drawn from, besides the concept's; by default all, of a large bank a part.
        repeats, seed, run: as for :func:`find_concept`.

    Raises:
        MissingNeed: too few rows on either side.
        BadParameter: no such row.
    """
    inside = np.unique(np.asarray(rows, np.int64))
    bank.check_rows(inside)
    others = np.setdiff1d(np.arange(len(bank)) if among is None else among, inside)
    if len(others) > MOST:
        others = np.sort(np.random.default_rng(seed).choice(others, MOST, replace=False))
    found = bank.vectors(inside), bank.vectors(others)
    return find_concept(name, *found, repeats=repeats, seed=seed, run=run)


def concept_of_mask(
    case: Case,
    layer: str,
    mask: NDArray[Any],
    *,
    name: str = "painted region",
    beside: NDArray[Any] | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Concept:
    """Painted pixels as a concept: the layer's places that are painted, against the others of the image.

    Args:
        case: the image and the model.
        layer: dotted name of the layer.
        mask: (*space), not 0 where the concept is.
        name: shown to people.
        beside: (*space), not 0 where the others may be; by default all that is not painted.
        repeats, seed: as for :func:`find_concept`.

    Raises:
        MissingNeed: too few places on either side.
        ImageMismatch: the mask has another shape.
    """
    inside, outside = places_of(case, layer, mask, beside)
    return find_concept(name, inside, outside, repeats=repeats, seed=seed, run=case.run)


def places_of(
    case: Case, layer: str, mask: NDArray[Any], beside: NDArray[Any] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A layer's answers at its places inside (n, D) and outside (m, D) of a mask (*space).

    A place is inside if half of the pixels that it stands for are, and outside if none is.

    Raises:
        ImageMismatch: the mask has another shape.
    """
    painted = np.asarray(mask) != 0
    allowed = ~painted if beside is None else np.asarray(beside) != 0
    for one in (painted, allowed):
        if one.shape != case.shape:
            raise ImageMismatch(
                f"The painted region has shape {one.shape}, the image {case.shape}.", fix="Paint it on this image."
            )
    activation = case.activation(layer)
    sizes, padded = tuple(activation.shape[2:]), case.model.padded(case.shape)
    cell = np.zeros(case.shape, np.int64)
    for axis, (n, cells, full) in enumerate(zip(case.shape, sizes, padded, strict=True)):
        along = np.minimum(cells - 1, (2 * np.arange(n) + 1) * cells // (2 * full))
        cell = cell * cells + along.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    every, inside, free = (
        np.bincount(cell.ravel(), weights=w.ravel().astype(float), minlength=int(np.prod(sizes)))
        for w in (np.ones(case.shape), painted, allowed)
    )
    values = activation[0].flatten(1).T.cpu().numpy()
    return values[(every > 0) & (2 * inside >= every)], values[(inside == 0) & (2 * free >= every) & (every > 0)]


def scores(concept: Concept, gradients: NDArray[np.floating]) -> Floats:
    """Share of examples with a positive sensitivity, per random set (R,); ``gradients`` (n, D) are Σ_p ∂T/∂A(p)."""
    share: Floats = (gradients.astype(np.float64) @ concept.directions.T > 0).mean(0)
    return share


def verdicts(
    concepts: Sequence[Concept], chance: Concept, gradients: NDArray[np.floating], *, tests: int | None = None
) -> list[Verdict]:
    """Score and significance of every concept.

    Args:
        concepts: what is tested.
        chance: of :func:`random_concept`.
        gradients: Σ_p ∂T/∂A(p) of every example (n, D).
        tests: what p is corrected for; by default the number of concepts.
    """
    random_scores = scores(chance, gradients)
    mean = gradients.astype(np.float64).mean(0)
    # two random sets differ by the noise of both; in a concept's effect, a mean over many, only its own is left
    level = float(np.quantile(np.abs(chance.directions @ mean * chance.gaps), 1 - ALPHA) / np.sqrt(2))
    found = []
    for concept in concepts:
        own = scores(concept, gradients)
        p = min(1.0, _p(own, random_scores) * (tests or len(concepts)))
        error = float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else 0.0
        each = concept.directions @ mean
        told = float(each.mean()), float((each * concept.gaps).mean()), level
        found.append(Verdict(concept.name, float(own.mean()), error, p, *told))
    return found


def _concept(name: str, found: list[tuple[Floats, float, float, float]], count: int, drawn: int) -> Concept:
    directions, offsets, accuracies, gaps = (np.array(part) for part in zip(*found, strict=True))
    return Concept(name, directions, offsets, accuracies, gaps, count, drawn)


def _p(own: Floats, other: Floats) -> float:
    """Two-sided p of Welch's t-test; sets without any spread differ surely or not at all."""
    if min(len(own), len(other)) < 2:
        return 1.0
    difference = abs(float(own.mean() - other.mean()))
    parts = [float(one.var(ddof=1)) / len(one) for one in (own, other)]
    if sum(parts) <= 1e-24:
        return float(difference <= 1e-12)
    free = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, (own, other), strict=True))
    return float(2 * stats.t.sf(difference / np.sqrt(sum(parts)), free))


def _drawn(values: NDArray[np.floating], count: int, rng: np.random.Generator) -> NDArray[Any]:
    return values[rng.permutation(len(values))[:count]].astype(np.float64)


def _classified(inside: NDArray[Any], outside: NDArray[Any]) -> tuple[Floats, float, float, float]:
    """Unit normal and offset of a linear classifier, its accuracy on what was held out, and the gap between means."""
    held = [max(1, len(side) // HELD_OUT) for side in (inside, outside)]
    x = np.concatenate([inside[held[0] :], outside[held[1] :]])
    y = np.repeat([1, 0], [len(inside) - held[0], len(outside) - held[1]])
    # one number for all features: the direction stays that of the features themselves
    centre, scale = x.mean(0), float(x.std(0).mean()) or 1.0
    fitted = LogisticRegression(C=STRENGTH, max_iter=1000).fit((x - centre) / scale, y)
    weight = np.asarray(fitted.coef_[0], np.float64)
    length = float(np.linalg.norm(weight))
    if length == 0:
        return np.zeros(x.shape[1]), 0.0, 0.5, 0.0
    direction = weight / length
    offset = float(centre @ direction - scale * float(fitted.intercept_[0]) / length)
    right = ((inside[: held[0]] @ direction > offset).mean() + (outside[: held[1]] @ direction <= offset).mean()) / 2
    return direction, offset, float(right), float((x[y == 1].mean(0) - x[y == 0].mean(0)) @ direction)
