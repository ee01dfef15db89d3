"""What is learned from scores of masks: running covariances, weighted ridge regression, shares of variance."""

from __future__ import annotations

from math import ceil, prod
from typing import NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from seglens.core.explanation import Figure
from seglens.methods.perturbation._designs import GridMasks
from seglens.methods.perturbation._shared import settled
from seglens.models.device import fine, finest

CHECK = 100  # masks between two looks at how sure a map is
COMPARED = 4096  # about how many pixels of two maps are ranked


class Sums:
    """Running sums over masks m (n, *box) and scores F (n,), in float64 where the device has it."""

    def __init__(self, like: Tensor) -> None:
        """Nothing yet; ``like`` (*box) gives shape and device."""
        self.n, self.f, self.ff = 0, 0.0, 0.0
        self.m, self.mm, self.fm, self.fmfm = (torch.zeros_like(like, dtype=finest(like.device)) for _ in range(4))

    def add(self, scores: Tensor, masks: Tensor) -> None:
        """Some more."""
        f, m = scores.to(masks.device, finest(masks.device)), fine(masks)
        self.n, self.f, self.ff = self.n + len(f), self.f + float(f.sum()), self.ff + float(f @ f)
        self.m += m.sum(0)
        self.fm += torch.tensordot(f, m, 1)
        m.square_()
        self.mm += m.sum(0)
        self.fmfm += torch.tensordot(f * f, m, 1)

    def __add__(self, other: Sums) -> Sums:
        """Both together."""
        out = Sums(self.m)
        for name in vars(self):
            setattr(out, name, getattr(self, name) + getattr(other, name))
        return out

    def centred(self) -> tuple[Tensor, Tensor]:
        """Cov(F, m) / Var(m) per pixel, and its standard error as the slope of a line."""
        n, mean = max(1, self.n), self.f / max(1, self.n)
        varied = self.mm / n - (self.m / n) ** 2
        moved_ = varied > 1e-9  # where no mask has touched a pixel yet nothing is known
        varied = varied.clamp(min=1e-9)
        slope = torch.where(moved_, (self.fm / n - mean * self.m / n) / varied, 0.0)
        rest = (self.ff / n - mean**2 - slope**2 * varied).clamp(min=0)
        return slope, torch.where(moved_, (rest / varied / max(1, n - 2)).sqrt(), 0.0)

    def original(self, keep: float) -> tuple[Tensor, Tensor]:
        """Mean of F m / p per pixel, and the standard error of this mean."""
        n = max(1, self.n)
        mean = self.fm / n
        return mean / keep, ((self.fmfm / n - mean**2).clamp(min=0) / n).sqrt() / keep


class HalvesCourse:
    """How a map of masks comes to be: two halves of the masks, apart, and how well their maps agree.

    Scores are taken in portions that do not depend on the batch, so that the answer does not either.

    Args:
        masks: over the box where they lie.
        keep: set for the original form, ``None`` for the centred one.
        zero: taken off every score before it is summed; nearer to the mean is more precise.
        stop: the agreement that is enough; ``None`` never stops.
    """

    def __init__(self, masks: GridMasks, keep: float | None, zero: float, stop: float | None) -> None:
        """Nothing yet."""
        self._masks, self._keep, self._zero, self._stop = masks.within(masks.box), keep, zero, stop
        sizes = [s.stop - s.start for s in masks.box]
        blank = masks.lines[0].new_zeros(sizes)
        self._halves = (Sums(blank), Sums(blank))
        # portions divide CHECK, and bound the memory that masks take
        self._portion = next((p for p in (50, 10) if p * prod(sizes) <= 2**22), 2)
        self._scores = torch.zeros(len(masks), dtype=torch.float64)
        self.taken: list[int] = []
        self.agreement: list[float] = []
        self.error: list[float] = []
        self.ready = self.done = False

    @property
    def n(self) -> int:
        """Masks summed so far."""
        return self._halves[0].n + self._halves[1].n

    def feed(self, which: Tensor, scores: Tensor) -> None:
        """Take the next scores; looks how well the halves agree every so many masks, also after the last one."""
        self._scores[which] = scores - self._zero
        self.ready = False
        known, total = int(which[-1]) + 1, len(self._scores)
        while not self.done and self.n < known and (self.n + self._portion <= known or known == total):
            start, stop = self.n, min(self.n + self._portion, total)
            masks = self._masks.batch(start, stop)[:, 0]
            for half in (0, 1):
                every_second = slice((start + half) % 2, None, 2)
                self._halves[half].add(self._scores[start:stop][every_second], masks[every_second])
            if self.n % CHECK == 0 or self.n == total:
                self._look()

    def map(self) -> tuple[Tensor, Tensor]:
        """The map so far and its standard error (*box), float64 on the CPU."""
        values, error = self._of(self._halves[0] + self._halves[1])
        return values.cpu(), error.cpu()

    def verdict(self) -> str:
        """How sure the map is, in words."""
        text = (
            f"The maps of the two halves of the masks have a rank correlation of {self.agreement[-1]:.2f}"
            f"{', which is enough' if self.done else ''}. "
            f"On average the standard error is {self.error[-1]:.0%} of the largest value."
        )
        if not self.map()[0].any():
            return f"{text} No mask moved the target: the map is zero."
        if self._stop is not None and not self.done:
            return f"{text} That is below {self._stop:g}: take more masks before you trust faint parts of the map."
        return text

    def figure(self) -> Figure:
        """The way it settled: per look the agreement of the halves and the standard error."""
        curves = {"rank correlation of the halves": self.agreement, "standard error / largest value": self.error}
        return settled(self.taken, curves, "masks")

    def _of(self, sums: Sums) -> tuple[Tensor, Tensor]:
        return sums.centred() if self._keep is None else sums.original(self._keep)

    def _look(self) -> None:
        one, two = (self._of(half)[0] for half in self._halves)
        values, error = self.map()
        self.taken.append(self.n)
        self.agreement.append(rank_correlation(one, two))
        self.error.append(float(error.mean() / values.abs().max().clamp(min=1e-300)))
        self.ready = True
        self.done = self._stop is not None and self.agreement[-1] > self._stop


def rank_correlation(one: Tensor, two: Tensor) -> float:
    """Spearman's, over a lattice of pixels if there are many; 0 where a map is flat."""
    step = ceil((one.numel() / COMPARED) ** (1 / one.ndim))
    a, b = (m[(slice(None, None, step),) * m.ndim].flatten().cpu().numpy() for m in (one, two))
    if a.min() == a.max() or b.min() == b.max():
        return 0.0
    return float(spearmanr(a, b).statistic)


def nearness(design: Tensor, width: float) -> Tensor:
    """Weight of each row of 0 and 1 (N, M): √exp(-d²/κ²), d its cosine distance to the row of ones."""
    distance = 1 - design.mean(1).sqrt()  # of an empty row 1, as for any vector at right angles
    return (-(distance**2) / width**2).exp().sqrt()


def fit(design: Tensor, scores: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Weighted ridge regression with a free intercept: coefficients (M,), weighted R² (not a number if flat)."""
    share = weights / weights.sum()
    x, y = design - share @ design, scores - share @ scores
    normal = x.T @ (weights[:, None] * x) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    coefficients = torch.linalg.lstsq(normal, x.T @ (weights * y), driver="gelsd").solution
    total = float(weights @ y**2)
    r2 = 1 - float(weights @ (y - x @ coefficients) ** 2) / total if total > 0 else float("nan")
    return coefficients, r2


def refitted(design: Tensor, scores: Tensor, weights: Tensor, ridge: float, draws: Tensor) -> Tensor:
    """Deviation of each coefficient (M,) of :func:`fit` over samples drawn again, ``draws`` (refits, N) of rows."""
    return torch.stack([fit(design[d], scores[d], weights[d], ridge)[0] for d in draws]).std(0)


class Shares(NamedTuple):
    """Shares of variance per coordinate (d,), and what they may be wrong by.

    Args:
        total, first: of total and of first order; all 0 where nothing varies.
        error: standard error of ``total``.
        sum_error: standard error of the sum of ``total``.
    """

    total: Tensor
    first: Tensor
    error: Tensor
    sum_error: float


def shares(scores: Tensor) -> Shares:
    """Jansen's estimates from scores (N, 2 + d) of A, B and A with one coordinate of B; errors by leaving one out."""
    a, b, exchanged = scores[:, 0], scores[:, 1:2], scores[:, 2:]
    n = len(scores)
    variance = a.var() if n > 2 else a.new_zeros(())
    # scores come of numbers in single precision: less than its noise is no variance
    if n <= 2 or float(variance.sqrt()) <= 1e-6 * float(a.abs().max()):
        zero = scores.new_zeros(exchanged.shape[1])
        return Shares(zero, zero, zero, 0.0)
    halves = (a[:, None] - exchanged).square() / 2
    first = 1 - (b - exchanged).square().mean(0) / 2 / variance
    off = a - a.mean()
    others = ((off.square().sum() - off.square()) - off.square() / (n - 1)) / (n - 2)  # variance without each
    without = (halves.sum(0) - halves) / (n - 1) / others.clamp(min=1e-3 * float(variance))[:, None]
    return Shares(halves.mean(0) / variance, first, _jackknife(without), float(_jackknife(without.sum(1))))


def _jackknife(without: Tensor) -> Tensor:
    """Standard error from the estimates without each sample (N, …)."""
    return ((len(without) - 1) * without.var(0, correction=0)).sqrt()
