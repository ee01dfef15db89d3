"""Maximum mean discrepancy: which few points stand for many, and where they stand for them badly (card A/B5).

With k(x, y) = exp(-γ‖x - y‖²) over n points, prototypes S greedily maximise

    J(S) = 2/(n|S|) Σ_i Σ_{j∈S} k(x_i, x_j) - 1/|S|² Σ_{i,j∈S} k(x_i, x_j),

which is a constant minus the squared discrepancy between all points and S. The witness
w(x) = 1/n Σ_i k(x_i, x) - 1/|S| Σ_{j∈S} k(x_j, x) says where S has too little (positive) or too much (negative).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SAME = 1e-9  # what is left of a point that those chosen already say


def squared_distances(one: NDArray[np.floating], other: NDArray[np.floating]) -> Floats:
    """Squared Euclidean distances of (n, D) and (m, D): (n, m), never below 0."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    # about their common mean, so that nothing is lost where the vectors are long and close together
    centre = b.mean(0)
    a, b = a - centre, b - centre
    found = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    clean: Floats = np.maximum(found, 0)
    return clean


def gamma_of(distances: Floats) -> float:
    """One over the median squared distance between different points; 1 where all points are the same."""
    upper = distances[np.triu_indices(len(distances), 1)]
    middle = float(np.median(upper)) if upper.size else 0.0
    return 1 / middle if middle > 0 else 1.0


def value(kernel: Floats, chosen: Sequence[int]) -> float:
    """J of a set of points; ``kernel`` is (n, n)."""
    few = list(chosen)
    return float(2 * kernel[:, few].sum() / (len(kernel) * len(few)) - kernel[np.ix_(few, few)].sum() / len(few) ** 2)


def prototypes(kernel: Floats, count: int) -> list[int]:
    """Greedily, each the point that raises J most, in the order chosen; all points if there are no more than that."""
    mean, own = kernel.mean(0), kernel.diagonal()
    taken, chosen = np.zeros(len(kernel)), list[int]()
    inside = across = 0.0
    for size in range(1, min(count, len(kernel)) + 1):
        gain = 2 * (across + mean) / size - (inside + 2 * taken + own) / size**2
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        across += float(mean[best])
        inside += float(2 * taken[best] + own[best])
        taken += kernel[best]
        chosen.append(best)
    return chosen


def witness(kernel: Floats, chosen: Sequence[int]) -> Floats:
    """w at every point (n,)."""
    found: Floats = kernel.mean(0) - kernel[list(chosen)].mean(0)
    return found


def criticisms(kernel: Floats, chosen: Sequence[int], count: int, *, diverse: bool = True) -> list[int]:
    """Points of the largest |w| that are no prototypes, in the order chosen.

    Args:
        kernel: (n, n).
        chosen: the prototypes.
        count: how many; fewer are found where there are no more, or all others say what is chosen already.
        diverse: add the gain in log det of the kernel of those chosen, so that no two of them are alike.
    """
    gain = np.abs(witness(kernel, chosen))
    left = kernel.diagonal().copy()  # of every point, what those chosen do not say: its pivot in a Cholesky step
    steps: list[Floats] = []
    found: list[int] = []
    free = np.ones(len(kernel), bool)
    free[list(chosen)] = False
    while len(found) < count and free.any():
        if diverse:
            free &= left > SAME
            if not free.any():
                break
        total = gain + (np.log(np.maximum(left, SAME)) if diverse else 0)
        best = int(np.where(free, total, -np.inf).argmax())
        found.append(best)
        free[best] = False
        if diverse:
            rest = kernel[best] - sum((step[best] * step for step in steps), np.zeros(len(kernel)))
            steps.append(rest / np.sqrt(left[best]))
            left = left - steps[-1] ** 2
    return found
