"""Shapley values of a game, from the scores of coalitions: which to score, and how to solve. In float64.

A *row* is the half of a pair of coalitions, 1 where a player takes part; the other half is its complement. Of a
pair only the difference is used, its *gain* v(S) - v(not S). That alone removes every interaction of an even number
of players, which have no part in what is left to be told apart, so games up to the second order are solved exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, lgamma

import torch
from torch import Tensor

DEGREES = (1, 3, 5)  # orders of interaction that a gain can hold, as far as they are modelled
RATIOS = (0.0, *(10 ** (k / 2) for k in range(-16, 3)))
JITTER = 1e-10
TUNED_ON = 512  # pairs from which the strength of the interactions is learned
SPARSE = 4  # below this share of all coalitions of a size they are drawn, else chosen from a list


@dataclass(frozen=True, eq=False)
class Solved:
    """Shapley values and their standard errors, (M,) each."""

    values: Tensor
    errors: Tensor


def every(players: int) -> Tensor:
    """All coalitions (2^M, M), the empty one first."""
    return ((torch.arange(2**players)[:, None] >> torch.arange(players)) & 1).double()


def exact(coalitions: Tensor, scores: Tensor) -> Tensor:
    """The definition itself, (M,): ``coalitions`` (2^M, M) in any order and their ``scores`` (2^M,)."""
    players = coalitions.shape[1]
    size = coalitions.sum(1).long().tolist()

    def share(before: int) -> float:
        # of all orders, how many have just these players before and just those after
        return float(torch.tensor(lgamma(before + 1) + lgamma(players - before) - lgamma(players + 1)).exp())

    shares = torch.tensor([share(s) for s in range(players)], dtype=torch.float64)
    joined = torch.stack([shares[max(0, s - 1)] for s in size])[:, None]
    left = torch.stack([shares[min(players - 1, s)] for s in size])[:, None]
    return scores.double() @ (coalitions * joined - (1 - coalitions) * left)


def pairs(players: int, count: int, generator: torch.Generator) -> Tensor:
    """Rows (n, M) of different pairs, in random order; all there are if ``count`` suffices.

    Sizes are drawn with the square root of the kernel's weight, between Kernel SHAP and leverage sampling; within a
    size all players take part equally often.
    """
    sizes = list(range(1, players // 2 + 1))
    there = [comb(players, k) // (2 if 2 * k == players else 1) for k in sizes]
    wanted = [(0.5 if 2 * k == players else 1.0) / (k * (players - k)) ** 0.5 for k in sizes]
    counts = _allotted(wanted, there, count)
    rows = [
        row for k, n, most in zip(sizes, counts, there, strict=True) for row in _of_size(players, k, n, most, generator)
    ]
    if not rows:
        return torch.zeros(0, players, dtype=torch.float64)
    return torch.stack(rows)[torch.randperm(len(rows), generator=generator)]


def paired(rows: Tensor) -> Tensor:
    """The empty coalition, then each of the rows (n, M) and its complement: (1 + 2n, M)."""
    both = torch.stack([rows, 1 - rows], 1).flatten(0, 1)
    return torch.cat([rows.new_zeros(1, rows.shape[1]), both])


def kernel_weights(rows: Tensor) -> Tensor:
    """Weight of each pair (n,): what the kernel gives to all pairs of its size, shared by those that are there."""
    players = rows.shape[1]
    size = rows.sum(1)
    size = torch.minimum(size, players - size).long()
    mass = torch.where(2 * size == players, 0.5, 1.0).double() / (size * (players - size))
    return mass / torch.bincount(size)[size]


def least_squares(design: Tensor, gains: Tensor, total: float, weights: Tensor) -> Solved:
    """min Σ w (gain - design φ)² subject to Σ φ = total: the regression of Kernel SHAP.

    Args:
        design: (n, M). Of pairs it is ``2 rows - 1``; for single coalitions, whose gain is v(S) - v(empty), ``rows``.
        gains: (n,).
        total: v(all) - v(empty).
        weights: (n,).

    Returns:
        Values, and standard errors from what each row's residual moves them by; these are too large rather than too
        small, for they do not know that no row is drawn twice and that all players take part equally often.
    """
    root = weights.sqrt()[:, None]
    reduced = root * (design[:, :-1] - design[:, -1:])
    wanted = root[:, 0] * (gains - design[:, -1] * total)
    inverse = torch.linalg.pinv(reduced)
    free = inverse @ wanted
    held = (reduced * inverse.T).sum(1)
    # a row that holds the fit in place leaves a residual that is too small (HC2 of White's estimator)
    moves = inverse * ((wanted - reduced @ free) / (1 - held).clamp(min=1e-9).sqrt())
    moves = torch.cat([moves, -moves.sum(0, keepdim=True)])
    return Solved(torch.cat([free, total - free.sum(0, keepdim=True)]), moves.square().sum(1).sqrt())


def gaussian_process(rows: Tensor, gains: Tensor, total: float) -> Solved:
    """Expected Shapley values given the gains, under a prior in which all players are alike.

    The odd part of a game is a sum of products of an odd number of signs (a player takes part: 1, or not: -1). Each
    product has a random strength, the higher its order the smaller; by how much is learned from the gains. Then
    gains are correlated as their coalitions are alike, which a regression ignores, and the Shapley values,
    being linear in the strengths, have an expectation and a standard error in closed form.

    Args:
        rows: (n, M), one of each pair.
        gains: (n,).
        total: v(all) - v(empty), which the values add up to.
    """
    players = rows.shape[1]
    signs = torch.cat([torch.ones(1, players, dtype=torch.float64), 2 * rows.double() - 1])
    seen = torch.cat([torch.tensor([total], dtype=torch.float64), gains.double()]) / 2
    if not bool(seen.any()):
        zero = torch.zeros(players, dtype=torch.float64)
        return Solved(zero, zero)
    degrees = [r for r in DEGREES if r <= players]
    few = signs[: TUNED_ON + 1]
    ratio = _ratio(_products(few @ few.T, players, degrees), seen[: TUNED_ON + 1], degrees)
    strength = [ratio ** ((r - 1) // 2) for r in degrees]
    root = _root(_products(signs @ signs.T, players, degrees), strength)
    # how each gain and each Shapley value vary together
    others = signs.sum(1, keepdim=True) - signs
    parts = _products(others, players - 1, [r - 1 for r in degrees])
    together = 2 / players * signs * sum(s * p for s, p in zip(strength, parts, strict=True))
    white = torch.linalg.solve_triangular(root, torch.cat([together, seen[:, None]], 1), upper=False)
    told, rest = white[:, :-1], white[:, -1]
    values = told.T @ rest
    before = 4 / players * sum(s / r for s, r in zip(strength, degrees, strict=True))
    variance = (before - told.square().sum(0)).clamp(min=0) * float(rest @ rest) / len(rest)
    return Solved(values + (total - values.sum()) / players, variance.sqrt())


def _products(sums: Tensor, players: int, degrees: list[int]) -> list[Tensor]:
    """Mean of the products of ``r`` of ``players`` signs, for signs of each sum, by recursion in ``r``."""
    made = [torch.ones_like(sums), sums / max(1, players)]
    for r in range(1, max(degrees)):
        made.append((sums * made[r] - r * made[r - 1]) / (players - r))
    return [made[r] for r in degrees]


def _root(alike: list[Tensor], strength: list[float]) -> Tensor:
    covariance = sum((s * a for s, a in zip(strength, alike, strict=True)), torch.zeros_like(alike[0]))
    covariance.diagonal().add_(JITTER * sum(strength))
    root: Tensor = torch.linalg.cholesky(covariance)
    return root


def _ratio(alike: list[Tensor], seen: Tensor, degrees: list[int]) -> float:
    """How strong each further order is against the one before: what makes the gains most likely."""
    best, found = -float("inf"), 0.0
    for ratio in RATIOS if len(degrees) > 1 else RATIOS[:1]:
        root = _root(alike, [ratio ** ((r - 1) // 2) for r in degrees])
        rest = torch.linalg.solve_triangular(root, seen[:, None], upper=False)
        likely = -len(seen) / 2 * float(rest.square().mean().log()) - float(root.diagonal().log().sum())
        if likely > best:
            best, found = likely, ratio
    return found


def _allotted(wanted: list[float], there: list[int], count: int) -> list[int]:
    """How many pairs of each size: in proportion, never more than there are, and in all ``count`` if there are."""
    counts = [0] * len(there)
    left = min(count, sum(there))
    while left > 0:
        free = [i for i, n in enumerate(there) if counts[i] < n]
        scale = left / sum(wanted[i] for i in free)
        ideal = {i: wanted[i] * scale for i in free}
        for i in free:
            counts[i] += min(int(ideal[i]), there[i] - counts[i])
        # what rounding left goes to the largest remainders, one each
        spare = min(count, sum(there)) - sum(counts)
        for i in sorted(free, key=lambda i: int(ideal[i]) - ideal[i])[:spare]:
            counts[i] += counts[i] < there[i]
        left = min(count, sum(there)) - sum(counts)
    return counts


def _of_size(players: int, size: int, count: int, there: int, generator: torch.Generator) -> list[Tensor]:
    if count * SPARSE >= there:
        listed = [c for c in combinations(range(players), size) if 2 * size < players or c[0] == 0]
        chosen = torch.randperm(there, generator=generator)[:count].tolist()
        return [_row(players, listed[i]) for i in chosen]
    rows: list[Tensor] = []
    seen: set[tuple[int, ...]] = set()
    often = torch.zeros(players, dtype=torch.float64)
    while len(rows) < count:
        dice = torch.rand(players, generator=generator, dtype=torch.float64)
        # those that took part least come first; if that gives a known pair, anybody does
        for order in (often + dice, torch.rand(players, generator=generator, dtype=torch.float64)):
            members = sorted(order.argsort()[:size].tolist())
            row = _row(players, members)
            if 2 * size == players and members[0] != 0:
                members = (1 - row).nonzero().flatten().tolist()
            if tuple(members) not in seen:
                seen.add(tuple(members))
                rows.append(row)
                often += row
                break
    return rows


def _row(players: int, members: tuple[int, ...] | list[int]) -> Tensor:
    row = torch.zeros(players, dtype=torch.float64)
    row[list(members)] = 1
    return row
