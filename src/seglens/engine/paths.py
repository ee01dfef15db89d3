"""Copies of an image for gradients: with noise on it, along a straight path to it, or drawn from around such paths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi

import numpy as np
import torch
from torch import Tensor

from seglens.core.boxes import Box, at_box, moved, whole
from seglens.engine.perturb import Perturbations

ROUNDS = ((16, 0x7FEB352D), (15, -0x7B935975), (16, 1))  # shifts and factors, as of 32 bits with a sign
BITS = 24  # of a number between 0 and 1, all that float32 holds


@dataclass(frozen=True, eq=False)
class Noise:
    """Standard normal noise that depends on seed, copy and place alone: a crop has the noise of the whole image.

    Each value is made of its own place by an integer hash (two rounds of C. Wellons' lowbias32 with keys of seed and
    copy) and the formula of Box and Muller. So it is the same on every device up to rounding, and no loop runs over it.

    Args:
        shape: of the image (C, *space).
        seed: of all draws.
    """

    shape: tuple[int, ...]
    seed: int

    def __call__(self, start: int, stop: int, box: Box, device: torch.device | str = "cpu") -> Tensor:
        """Noise of some copies (n, C, *box), float32."""
        channels, *space = self.shape
        place = torch.arange(channels, device=device, dtype=torch.int64)
        for n, span in zip(space, box, strict=True):
            place = place[..., None] * n + torch.arange(span.start, span.stop, device=device)
        place = place.to(torch.int32)  # beyond 32 bits it starts again, in another row and column
        words = [np.random.SeedSequence([self.seed % 2**63, copy]).generate_state(4) for copy in range(start, stop)]
        keys = torch.from_numpy(np.stack(words).astype(np.int32)).to(device)
        keys = keys.reshape(len(words), 4, *(1,) * len(self.shape))
        radius, angle = (_uniform(place, keys[:, 2 * i], keys[:, 2 * i + 1]) for i in (0, 1))
        return radius.log_().mul_(-2).sqrt_().mul_(angle.mul_(2 * pi).cos_())


def _uniform(place: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """Numbers in (0, 1] of places (C, *space) and two keys (n, 1, …): (n, C, *space) float32."""
    mixed = _hashed(_hashed(place ^ one).add_(two))
    return mixed.bitwise_right_shift_(32 - BITS).bitwise_and_(2**BITS - 1).float().add_(1).mul_(2.0**-BITS)


def _hashed(x: Tensor) -> Tensor:
    """Another 32 bits for each, in place."""
    for shift, factor in ROUNDS:
        x ^= (x >> shift).bitwise_and_(2 ** (32 - shift) - 1)
        x *= factor
    return x


@dataclass(frozen=True, eq=False)
class Noisy(Perturbations):
    """Copies of ``x`` (1, C, *space) with normal noise of deviation ``sigma`` on them.

    Args:
        x: clean input, or a box of it.
        sigma: in units of the input.
        count: how many copies.
        noise: where the noise comes from.
        box: which part of the image ``x`` is.
    """

    x: Tensor
    sigma: float
    count: int
    noise: Noise
    box: Box

    @classmethod
    def of(cls, x: Tensor, sigma: float, count: int, seed: int) -> Noisy:
        """Copies of a whole image."""
        return cls(x, sigma, count, Noise(tuple(x.shape[1:]), seed), whole(x.shape[2:]))

    def __len__(self) -> int:
        """How many copies."""
        return self.count

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, C, *box)."""
        return self.x + self.sigma * self.noise(start, min(stop, self.count), self.box, self.x.device).to(self.x)

    def within(self, box: Box) -> Noisy:
        """The copies inside a box; no other noise is drawn."""
        corner = [-s.start for s in self.box]
        return replace(self, x=self.x[at_box(box)], box=moved(box, corner))


@dataclass(frozen=True, eq=False)
class Along(Perturbations):
    """Points of the straight path from one image to another: ``start + α (stop − start)``.

    Args:
        start, stop: (1, C, *space).
        alphas: where the points lie (n,), from 0 to 1.
    """

    start: Tensor
    stop: Tensor
    alphas: Tensor

    def __len__(self) -> int:
        """One per α."""
        return len(self.alphas)

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, C, *space)."""
        return torch.lerp(self.start, self.stop, _column(self.alphas[start:stop], self.start))

    def within(self, box: Box) -> Along:
        """The points inside a box."""
        at = at_box(box)
        return Along(self.start[at], self.stop[at], self.alphas)


@dataclass(frozen=True, eq=False)
class Drawn(Perturbations):
    """Each copy a point of the path from a starting image to a noisy copy: ``b + α (x + σ ε − b)``.

    Args:
        starts: starting images (B, C, *space).
        which: per copy, which of them (n,).
        alphas: per copy, where on its path (n,).
        ends: the noisy copies.
    """

    starts: Tensor
    which: Tensor
    alphas: Tensor
    ends: Noisy

    def __len__(self) -> int:
        """How many copies."""
        return len(self.alphas)

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, C, *space)."""
        begin = self.starts[self.which[start:stop]]
        return begin + _column(self.alphas[start:stop], begin) * self.ways(start, stop)

    def ways(self, start: int, stop: int) -> Tensor:
        """The whole way of some copies, from start to end (n, C, *space)."""
        return self._ends(start, stop) - self.starts[self.which[start:stop]]

    def within(self, box: Box) -> Drawn:
        """The copies inside a box."""
        return replace(self, starts=self.starts[at_box(box)], ends=self.ends.within(box))

    def _ends(self, start: int, stop: int) -> Tensor:
        # without noise none has to be drawn
        return self.ends.batch(start, stop) if self.ends.sigma else self.ends.x


def nodes(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Points (steps,) of the path from 0 to 1 and their weights (steps,), in an order that is spread over the path.

    Args:
        rule: ``gauss-legendre`` or ``midpoint``.
        steps: how many.

    Returns:
        Both float64; the weights sum to 1.
    """
    if rule == "gauss-legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        points, weights = (points + 1) / 2, weights / 2
    else:
        points, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    # multiples of the golden ratio: the first few points are a coarse path already, so answers on the way make sense
    order = np.argsort(np.arange(steps) * 0.6180339887498949 % 1)
    order = np.argsort(order, kind="stable")
    return torch.from_numpy(points[order].copy()), torch.from_numpy(weights[order].copy())


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))
