"""A straight path to the image: the integral of the gradient along it, and whether it can be trusted."""

import torch
from torch import Tensor

from seglens.core.boxes import Box, at_box
from seglens.core.explanation import Figure
from seglens.engine.case import Case
from seglens.engine.paths import Along
from seglens.engine.sampled import Sampled
from seglens.methods.gradient._paths import warn
from seglens.models.device import fine_sum


class Straight:
    """The integral along a path, as far as it is known; the points so far stand for all.

    Args:
        case: the question.
        path: its points.
        weights: of each point (n,).
    """

    done = False

    def __init__(self, case: Case, path: Along, weights: Tensor) -> None:
        """Nothing is summed up yet; the score at the start is asked."""
        self._case, self._path, self._weights = case, path, weights
        self.first = float(case.sampler.scores(path.start)[0])
        self._sum = torch.zeros(())
        self._weight = 0.0
        self.box: Box = ()
        self._seen: list[tuple[float, float]] = []  # α and score

    @property
    def n(self) -> int:
        """Points so far."""
        return len(self._seen)

    @property
    def values(self) -> Tensor:
        """The map (C, *box)."""
        way = (self._path.stop - self._path.start)[at_box(self.box)][0]
        return way * self._sum / self._weight

    @property
    def total(self) -> float:
        """What the map adds up to."""
        return float(fine_sum(self.values))

    def feed(self, made: Sampled) -> None:
        """Add some points."""
        self.box = made.box
        weights = self._weights[made.index]
        self._sum = self._sum + torch.einsum("n,n...->...", weights.to(made.gradients), made.gradients)
        self._weight += float(weights.sum())
        self._seen += zip(self._path.alphas[made.index].tolist(), made.scores.tolist(), strict=True)

    def check(self, fill: str) -> None:
        """Once all points are in: say if the map adds up to something else than the change of the score."""
        if self.n == len(self._path):
            warn(self._case, self.total, self.first, sorted(self._seen), fill)

    def figure(self) -> Figure:
        """The score along the path."""
        seen = sorted(self._seen)
        alphas = [0.0, *(s[0] for s in seen), 1.0]
        scores = [self.first, *(s[1] for s in seen), self._case.clean_score]
        return Figure("path", "line", alphas, {"score": scores}, "share of the way to the image", "score")
