"""The path of guided integrated gradients: pixels of small gradient go first, none leaves the band around the line."""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from seglens.core.boxes import at_box
from seglens.core.explanation import Figure
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.models.device import fine_sum

CLOSE = 1e-6  # of the whole way: as good as there

Steps = Annotated[int, Param("Steps of the path; a gradient each.", ge=2, le=5000, quick=12)]
Fraction = Annotated[
    float, Param("Share of the pixels, of lowest gradient, that may move at a time.", gt=0, le=1, step=0.05)
]
Band = Annotated[
    float, Param("How far a pixel may be ahead of the straight path or behind it, as a share of the way.",
                 ge=0, le=1, step=0.01)
]  # fmt: skip


class GuidedPath:
    """A path from a starting image to the image, inside the field of the target; what lies around has no influence.

    At each step the rest of the way (sum of the sizes of all changes) has to fall to its share. Pixels behind the band
    are pulled to its edge; then the fraction of lowest gradient moves towards its far edge, again and again, until
    the share is reached. The gradient is that where the step began.

    Args:
        case: the question.
        start: where the path starts (1, C, *space).
        steps: how many.
        fraction: of all pixels, so many of those that can still move do so at a time.
        band: how far ahead or behind, as a share of the way.
    """

    def __init__(self, case: Case, start: Tensor, steps: int, fraction: float, band: float) -> None:
        """At the start."""
        self._case, self._steps, self._fraction, self._band = case, steps, fraction, band
        self.box = case.sampler.field
        at = at_box(self.box)
        self._from, self._to = start[at].clone(), case.x[at]
        self._way = self._to - self._from
        self.values = torch.zeros_like(self._way)
        self.scores: list[float] = []
        self._left: list[float] = []

    def walk(self) -> Iterator[int]:
        """Step by step; :attr:`values` grows."""
        case, at = self._case, at_box(self.box)
        # around the field all is as it will be: it has no influence
        x = case.x.clone()
        now, whole_way = self._from.clone(), float(fine_sum(self._way.abs()))
        with case.sampler.busy():
            for step in range(1, self._steps + 1):
                case.run.progress(step - 1, self._steps, "steps")
                x[at] = now
                gradient, score = case.sampler.gradient(x)
                self.scores.append(float(score[0]))
                self._left.append(self._rest(now) / whole_way if whole_way else 0.0)
                after = self._moved(now, gradient[at], step / self._steps, whole_way)
                self.values += (after - now) * gradient[at]
                now = after
                yield step
        case.run.progress(self._steps, self._steps, "steps")

    @property
    def points(self) -> list[tuple[float, float]]:
        """How much of the way lay behind each step, and the score there."""
        return [(1 - left, score) for left, score in zip(self._left, self.scores, strict=True)]

    def figure(self) -> Figure:
        """The score along the path."""
        gone, scores = zip(*self.points, (1.0, self._case.clean_score), strict=True)
        return Figure("path", "line", [*gone], {"score": [*scores]}, "share of the way to the image", "score")

    def _rest(self, now: Tensor) -> float:
        return float(fine_sum((self._to - now).abs()))

    def _moved(self, now: Tensor, gradient: Tensor, share: float, whole_way: float) -> Tensor:
        """Where the step ends: ``1 - share`` of the way is left then."""
        low, high = max(share - self._band, 0.0), min(share + self._band, 1.0)
        nearest, furthest = self._from + low * self._way, self._from + high * self._way
        wanted = (1 - share) * whole_way
        moving = self._way != 0
        along = torch.where(moving, (now - self._from) / torch.where(moving, self._way, 1), high)
        x = torch.where(along < low, nearest, now)
        cost = gradient.abs()
        most = int(self._fraction * (cost.numel() - 1)) + 1
        while (rest := self._rest(x)) - wanted > CLOSE * whole_way:
            free = moving & ((furthest - x).abs() > CLOSE * self._way.abs())
            if not bool(free.any()):
                break
            costs = cost[free]
            some = free & (cost <= costs.kthvalue(min(most, len(costs))).values)
            could = float(fine_sum((furthest - x)[some].abs()))
            part = (rest - wanted) / could if could > 0 else torch.inf
            x = torch.where(some, x + min(1.0, part) * (furthest - x), x)
            if part <= 1:
                break
        return self._to.clone() if share >= 1 else x
