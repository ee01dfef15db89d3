"""Concepts as directions in a layer's features, how a target follows them, and whether that is more than chance.

A concept is a set of embeddings. Linear classifiers tell it from random others; the unit normal of each is a concept
activation vector v (card B/R7). The sensitivity of a target T is the derivative of T when v is added to the layer's
answer everywhere, S = Σ_p ∂T/∂A(p) · v. The score is the share of examples with S > 0. It is measured with one vector
per random set, and compared with vectors that tell one random set from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression

from seglens.core.errors import MissingNeed
from seglens.core.run import Run

Floats = NDArray[np.float64]
REPEATS = 20  # random sets
SIZE = 100  # embeddings on either side of a classifier, at most
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
        chance: 95 % of the random directions have an effect of a smaller size.
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
    return Concept(name, *(np.array(part) for part in zip(*found, strict=True)), len(inside), count)


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
    return Concept("random", *(np.array(part) for part in zip(*found, strict=True)), len(vectors), count)


def scores(concept: Concept, gradients: NDArray[np.floating]) -> Floats:
    """Share of examples with a positive sensitivity, per random set (R,); ``gradients`` (n, D) are Σ_p ∂T/∂A(p)."""
    share: Floats = (gradients.astype(np.float64) @ concept.directions.T > 0).mean(0)
    return share


def verdicts(concepts: Sequence[Concept], chance: Concept, gradients: NDArray[np.floating]) -> list[Verdict]:
    """Score and significance of every concept.

    Args:
        concepts: what is tested; their number is what p is corrected for.
        chance: of :func:`random_concept`.
        gradients: Σ_p ∂T/∂A(p) of every example (n, D).
    """
    random_scores = scores(chance, gradients)
    mean = gradients.astype(np.float64).mean(0)
    level = float(np.quantile(np.abs(chance.directions @ mean * chance.gaps), 1 - ALPHA))
    found = []
    for concept in concepts:
        own = scores(concept, gradients)
        p = min(1.0, _p(own, random_scores) * len(concepts))
        error = float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else 0.0
        each = concept.directions @ mean
        told = float(each.mean()), float((each * concept.gaps).mean()), level
        found.append(Verdict(concept.name, float(own.mean()), error, p, *told))
    return found


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
