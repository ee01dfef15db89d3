"""Gradients over noisy copies: their moments, by halves, and whether the halves agree."""

from typing import Annotated

import torch
from scipy.stats import spearmanr
from torch import Tensor

from seglens.core.boxes import Box
from seglens.core.explanation import Figure
from seglens.core.param import Param
from seglens.engine.sampled import Sampled

CHECK = 8  # copies between two looks whether it is enough
COMPARED = 2**16  # values that are ranked

Agreement = Annotated[
    float | None,
    Param(
        "Enough, when the maps of two halves of the copies agree by this rank correlation.",
        gt=0, lt=1, step=0.01, empty="all copies",
    ),
]  # fmt: skip


class Moments:
    """Running mean and variance of tensors of one shape."""

    def __init__(self) -> None:
        """Nothing is known."""
        self.n = 0
        self.mean = self.spread = torch.zeros(())

    def add(self, values: Tensor) -> Tensor:
        """Take one in; returns by how much the mean changed."""
        self.n += 1
        off = values - self.mean
        step = off / self.n
        self.mean = self.mean + step
        self.spread = self.spread + off * (values - self.mean)
        return step

    def __add__(self, other: "Moments") -> "Moments":
        """Of both together."""
        if not self.n or not other.n:
            return self if self.n else other
        both, off = Moments(), other.mean - self.mean
        both.n = self.n + other.n
        both.mean = self.mean + off * (other.n / both.n)
        both.spread = self.spread + other.spread + off.square() * (self.n * other.n / both.n)
        return both

    @property
    def variance(self) -> Tensor:
        """Mean square of the deviations."""
        return self.spread / max(1, self.n)

    @property
    def error(self) -> Tensor:
        """Standard error of the mean; nothing is known of a single one's."""
        return (self.spread / max(1, self.n - 1) / max(1, self.n)).sqrt()


class NoisyCourse:
    """Moments of two halves of the gradients, how much each changed the mean, and whether the halves agree."""

    def __init__(self, form: str, stop: float | None) -> None:
        """Nothing is known."""
        self._form, self._stop = form, stop
        self._halves = (Moments(), Moments())
        self._summed = Moments()
        self.changes: list[float] = []
        self.agreement, self.done = 0.0, False
        self.box: Box = ()

    @property
    def moments(self) -> Moments:
        """Of all gradients so far."""
        return self._halves[0] + self._halves[1]

    def feed(self, made: Sampled) -> None:
        """One by one, so that batches make no difference."""
        self.box = made.box
        for gradient in made.gradients:
            if self.done:
                return
            before = self.moments
            self._halves[before.n % 2].add(gradient)
            self._summed.add(gradient.sum(0, keepdim=True))
            now = self.moments
            self.changes.append(float((now.mean - before.mean).norm() / now.mean.norm().clamp(min=1e-30)))
            if self._stop is not None and now.n % CHECK == 0:
                self.agreement = _agree(*(self.values(half).flatten() for half in self._halves))
                self.done = self.agreement > self._stop

    def values(self, of: Moments) -> Tensor:
        """The map of some gradients (C, *box)."""
        if self._form == "mean":
            return of.mean
        return of.variance if self._form == "variance" else of.mean.square() + of.variance

    def deviation(self, show: str) -> Tensor:
        """Deviation over copies (1, *box) of the sum over channels, or the largest of any channel."""
        if show == "signed":
            return self._summed.variance.sqrt()
        return self.moments.variance.sqrt().amax(0, keepdim=True)

    def told(self) -> str:
        """How sure the mean is, in words."""
        now = self.moments
        size = float(now.mean.norm())
        ratio = float(now.variance.sqrt().norm()) / size if size else 0.0
        halves = "" if self._stop is None else f" Its halves have a rank correlation of {self.agreement:.2f}."
        return (
            f"The last copy changed the mean by {self.changes[-1]:.1%} of its size; the deviation over copies is "
            f"{ratio:.2g} times the mean.{halves}"
        )

    def figure(self) -> Figure:
        """The way the mean settled."""
        curve: dict[str, list[float]] = {"change of the mean": [*self.changes]}
        return Figure("convergence", "line", [*range(1, len(self.changes) + 1)], curve, "copies", "share of its size")


def _agree(one: Tensor, two: Tensor) -> float:
    step = max(1, len(one) // COMPARED)
    a, b = (v[::step].cpu() for v in (one, two))
    flat = torch.stack([a, b]).std(1).min() == 0
    return 0.0 if flat else float(spearmanr(a, b).statistic)
