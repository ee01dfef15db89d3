"""How Shapley values come to be: pairs of coalitions scored one after the other, looked at now and then."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from seglens.methods.perturbation import _shapley
from seglens.methods.perturbation._shapley import Solved

Solver = Literal["gaussian-process", "least-squares"]
FIRST, GROWTH = 8, 1.5  # pairs before the first look, and from one look to the next


class ShapleyCourse:
    """What is known so far of a game whose rows are scored in order.

    Copies are asked for as :func:`~seglens.methods.perturbation._shapley.paired`: the empty one, then each row
    and its complement. The full one is the image itself, whose score is known.

    Args:
        rows: (n, M), one of each pair.
        full: the score of the full coalition.
        solver: how to solve while coalitions are missing.
        tolerance: the standard error, as a share of the sum, that is small enough to stop; ``None`` never stops.
    """

    def __init__(self, rows: Tensor, full: float, solver: Solver, tolerance: float | None) -> None:
        """Nothing is scored yet."""
        self.rows, self.full, self.solver, self._tolerance = rows, full, solver, tolerance
        self._scores = torch.full((1 + 2 * len(rows),), torch.nan, dtype=torch.float64)
        self._least = max(FIRST, rows.shape[1]) if solver == "least-squares" else FIRST
        self._next, self._used = min(self._least, len(rows)), 0
        self.passes: list[int] = []
        self.error: list[float] = []
        self.done = False

    @property
    def total(self) -> float:
        """v(all) - v(empty), what the values add up to."""
        return self.full - float(self._scores[0])

    @property
    def ready(self) -> bool:
        """Whether there is enough for a first answer."""
        return self._used > 0

    @property
    def scored(self) -> int:
        """Copies that the answer uses."""
        return 1 + 2 * self._used

    @property
    def exact(self) -> bool:
        """Whether the answer uses all coalitions that exist."""
        return len(self.rows) == self._used == int(2 ** (self.rows.shape[1] - 1)) - 1

    def feed(self, which: Tensor, scores: Tensor) -> None:
        """Take scores in; looks where it is time, always at the same numbers of pairs, whatever the batch."""
        self._scores[which] = scores
        missing = self._scores.isnan().nonzero()
        known = (int(missing[0]) - 1 if len(missing) else len(self._scores) - 1) // 2
        while not self.done and self._used < self._next <= known:
            self._used = self._next
            self._next = min(len(self.rows), max(self._next + 1, int(self._next * GROWTH)))
            largest = float(self.solve().errors.max())
            self.passes.append(self.scored)
            self.error.append(largest)
            enough = self._tolerance is not None and largest <= self._tolerance * abs(self.total)
            self.done = enough and self._used < len(self.rows)

    def verdict(self, errors: Tensor) -> str:
        """How sure the values are, in words, given their standard errors (M,)."""
        if self.exact:
            return f"Exact: all {self.scored + 1} coalitions were scored."
        largest = float(errors.max())
        share = f", {largest / abs(self.total):.1%} of the sum" if self.total else ""
        how = "Stopped" if self.done else "Estimated"
        return f"{how} after {self.scored} coalitions; standard errors are at most {largest:.2g}{share}."

    def solve(self) -> Solved:
        """Values and standard errors from the pairs of the last look."""
        rows, scores = self.rows[: self._used], self._scores[: self.scored]
        if self.exact:
            scored = _shapley.paired(self.rows)
            every = torch.cat([scored, torch.ones_like(scored[:1])])
            values = _shapley.exact(every, torch.cat([scores, scores.new_tensor([self.full])]))
            return Solved(values, torch.zeros_like(values))
        gains = scores[1::2] - scores[2::2]
        if self.solver == "gaussian-process":
            return _shapley.gaussian_process(rows, gains, self.total)
        return _shapley.least_squares(2 * rows - 1, gains, self.total, _shapley.kernel_weights(rows))
