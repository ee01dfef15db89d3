"""Gradient times way at random points between starting images and the image: the mean, and how sure it is."""

from typing import Annotated

import torch
from torch import Tensor

from seglens.core.boxes import Box
from seglens.core.explanation import Figure
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.paths import Drawn
from seglens.engine.sampled import Sampled
from seglens.methods.gradient._noisy import CHECK, Moments
from seglens.methods.gradient._paths import placed
from seglens.models.device import fine_sum

Error = Annotated[
    float | None,
    Param(
        "Enough, when the standard error of the map is this share of its size.",
        gt=0, lt=1, step=0.05, empty="all points",
    ),
]  # fmt: skip


class Expected:
    """Means over the points so far, and their errors.

    Args:
        case: the question.
        copies: the points.
        stop: share of the map's size at which its standard error is small enough.
    """

    def __init__(self, case: Case, copies: Drawn, stop: float | None) -> None:
        """Nothing is known but the scores of the starting images."""
        self._case, self._copies, self._stop = case, copies, stop
        self.start = float(case.sampler.scores(copies.starts).mean())
        self._moments, self._totals = Moments(), Moments()
        self._errors: list[float] = []
        self._box: Box = ()
        self.done = False

    @property
    def n(self) -> int:
        """Points so far."""
        return self._moments.n

    @property
    def values(self) -> Tensor:
        """The map (1, C, *space)."""
        return placed(self._case, self._moments.mean[:-1], self._box)

    @property
    def total(self) -> float:
        """What the map adds up to."""
        return float(self._totals.mean)

    def error(self, show: str) -> Tensor:
        """Standard error (*space) of the sum over channels, or the largest of any channel."""
        error = self._moments.error
        shown = error[-1] if show == "signed" else error[:-1].amax(0)
        return placed(self._case, shown.expand_as(error[:-1]), self._box)[0, 0]

    def feed(self, made: Sampled) -> None:
        """One by one, so that batches make no difference; the sum over channels goes along as one more."""
        self._box, first = made.box, int(made.index[0])
        values = made.gradients * self._copies.within(made.box).ways(first, first + len(made.index))
        for one in values:
            if self.done:
                return
            self._moments.add(torch.cat([one, one.sum(0, keepdim=True)]))
            self._totals.add(fine_sum(one))
            size = self._moments.mean[:-1].norm().clamp(min=1e-30)
            self._errors.append(float(self._moments.error[:-1].norm() / size))
            if self._stop is not None and self.n >= 2 * CHECK and self.n % CHECK == 0:
                self.done = self._errors[-1] < self._stop

    def told(self) -> str:
        """How sure it is, in words."""
        return (
            f"The sum's standard error is {float(self._totals.error):.2g}; the map's is {self._errors[-1]:.0%} of its "
            "size."
        )

    def figure(self) -> Figure:
        """The way it settled."""
        curve: dict[str, list[float]] = {"standard error / size of the map": [*self._errors]}
        return Figure("convergence", "line", [*range(1, self.n + 1)], curve, "points", "share")
