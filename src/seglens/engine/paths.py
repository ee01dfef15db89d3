"""Copies of an image for gradients: with noise on it, along a straight path to it, or drawn from around such paths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor

from seglens.core.boxes import Box, at_box, common, moved, whole
from seglens.engine.perturb import Perturbations

SIDE = {2: 64, 3: 16}  # of the blocks in which noise is drawn


@dataclass(frozen=True, eq=False)
class Noise:
    """Standard normal noise that depends on seed, copy and place alone: a crop has the noise of the whole image.

    Args:
        shape: of the image (C, *space).
        seed: of all draws.
    """

    shape: tuple[int, ...]
    seed: int

    def __call__(self, start: int, stop: int, box: Box) -> Tensor:
        """Noise of some copies (n, C, *box), float32 on the CPU."""
        channels, *space = self.shape
        side = SIDE[len(space)]
        out = torch.empty(stop - start, channels, *(s.stop - s.start for s in box))
        lattice = [range(-(-n // side)) for n in space]
        generator = torch.Generator()
        for at in product(*(range(s.start // side, -(-s.stop // side)) for s in box)):
            block = tuple(slice(i * side, (i + 1) * side) for i in at)
            both = common(block, box)
            if both is None:
                continue
            number = int(np.ravel_multi_index(at, [len(line) for line in lattice]))
            here, there = moved(both, [s.start for s in block]), moved(both, [s.start for s in box])
            for copy in range(start, stop):
                words = np.random.SeedSequence([self.seed % 2**63, copy, number]).generate_state(2)
                generator.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
                drawn = torch.randn(channels, *(side,) * len(space), generator=generator)
                out[copy - start][(slice(None), *there)] = drawn[(slice(None), *here)]
        return out


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
        return self.x + self.sigma * self.noise(start, min(stop, self.count), self.box).to(self.x)

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
