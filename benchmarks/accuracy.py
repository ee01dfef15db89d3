"""How many passes Shapley values take to be as exact as Captum's Kernel SHAP with 500 samples.

Two games of the same random network: 12 units, where all 4096 coalitions give the exact values, and 64 units as in the
benchmark's row, where many antithetic permutations give values whose own error is far below those compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.contender import cells, score
from benchmarks.scenes import Scene

Values = NDArray[np.float64]
CAPTUM = 500
LADDER = (32, 50, 64, 100, 128, 160, 200, 300, 500)  # passes of ours
PERMUTATIONS = 200  # and their reverses, for the truth of 64 units


@dataclass(frozen=True)
class Game:
    """Units of a scene that can be taken away.

    Args:
        scene: the network and the image.
        grid: cells per axis.
        truth: Shapley values.
        value: coalitions (N, units) of 0 and 1 to numbers (N,).
    """

    scene: Scene
    grid: tuple[int, ...]
    truth: Values
    value: Callable[[Tensor], Tensor]

    def error(self, answers: list[Values]) -> float:
        """Root mean square error over units and answers, as a share of the root mean square of the truth."""
        return float(np.sqrt(np.mean((np.stack(answers) - self.truth) ** 2) / np.mean(self.truth**2)))


def playing(scene: Scene, grid: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The network's answers to coalitions."""
    numbers, unit = score(scene), cells(scene, grid)

    @torch.inference_mode()
    def value(keep: Tensor) -> Tensor:
        return torch.cat([numbers(scene.x * part.float()[:, unit[0, 0]].unsqueeze(1))[:, 0] for part in keep.split(32)])

    return value


def twelve() -> Game:
    """All coalitions are played once; from then on they are looked up."""
    scene, grid = Scene("basicunet", (48, 64)), (3, 4)
    bits = 2 ** torch.arange(12)
    every = (torch.arange(2**12)[:, None] // bits % 2).bool()
    table = playing(scene, grid)(every).double()
    values, sizes = table.numpy(), every.sum(1).numpy()
    truth = np.empty(12)
    for unit in range(12):
        without = np.flatnonzero(~every[:, unit].numpy())
        share = np.array([1 / (12 * comb(11, s)) for s in sizes[without]])
        truth[unit] = (share * (values[without + 2**unit] - values[without])).sum()
    return Game(scene, grid, truth, lambda keep: table[(keep.long() * bits).sum(1)])


def sixty_four(permutations: int) -> Game:
    """Truth from permutations and their reverses."""
    scene, grid = Scene("basicunet", (64, 64)), (8, 8)
    value = playing(scene, grid)
    rng = np.random.default_rng(5)
    total = np.zeros(64)
    for _ in range(permutations):
        order = rng.permutation(64)
        for line in (order, order[::-1]):
            keep = torch.zeros(65, 64, dtype=torch.bool)
            for (_, after), unit in zip(pairwise(range(65)), line, strict=True):
                keep[after:, unit] = True
            total[line] += np.diff(value(keep).numpy())
    return Game(scene, grid, total / (2 * permutations), value)


def ours(game: Game, samples: int, seed: int) -> Values:
    """Our Kernel SHAP, as anybody calls it."""
    from seglens.core.run import Run
    from seglens.session import explain

    scene, units = game.scene, len(game.truth)
    found = explain(
        "kernel-shap", scene.image(), scene.model(), scene.target("class"), run=Run(seed=seed), units="grid",
        pieces=units, fill="black", samples=samples,
    )  # fmt: skip
    return np.array(found.tables[0].columns["Shapley value"], float)


def captum(game: Game, name: str, samples: int, seed: int) -> Values:
    """A method of Captum on coalitions as its input."""
    import captum.attr

    torch.manual_seed(seed)
    method = getattr(captum.attr, name)(lambda keep: game.value(keep > 0.5).float())
    units = len(game.truth)
    found = method.attribute(torch.ones(1, units), baselines=0.0, n_samples=samples, perturbations_per_eval=1)
    return found[0].double().numpy()


def accuracy(repeats: int) -> dict[str, Any]:
    """Errors by passes, and the passes that equal accuracy takes.

    Returns:
        ``games`` with their errors, ``passes`` for the benchmark's row, ``passes_told`` for people.
    """
    from seglens.core.catalogue import METHODS

    there = "kernel-shap" in METHODS
    many = PERMUTATIONS if repeats > 5 else 10
    games = [
        ("12 units, true values from all 4096 coalitions:", twelve(), (4, 8, 16, 25)),
        (f"64 units, true values from {2 * many} permutations:", sixty_four(many), (2, 4, 8)),
    ]
    told: dict[str, Any] = {"games": []}
    needed: list[dict[str, int]] = []
    for title, game, permutations in games:
        units = len(game.truth)
        count = repeats if units == 12 else max(2, repeats // 2)
        shap = {n: game.error([captum(game, "KernelShap", n, s) for s in range(count)]) for n in (CAPTUM,)}
        sampling = {
            p * units + 1: game.error([captum(game, "ShapleyValueSampling", p, s) for s in range(count)])
            for p in permutations
        }
        mine = {n: game.error([ours(game, n, s) for s in range(count)]) for n in LADDER} if there else {}
        bar = shap[CAPTUM]
        errors = {"SegLens": mine, "Captum Kernel SHAP": shap, "Captum sampling": sampling}
        told["games"].append({"title": title, "units": units, "errors": errors})
        needed.append({"SegLens": enough(mine, bar), "Captum sampling": enough(sampling, bar)})
    # the row of the benchmark has 64 units, as the last game; ours must do in both
    told["passes"] = {"captum ShapleyValueSampling": (needed[-1]["Captum sampling"] - 1) // 64}
    if there:
        told["passes"]["ours"] = max(n["SegLens"] for n in needed)
    told["passes_told"] = [
        f"{name} {n} ({game['units']} units)"
        for game, found in zip(told["games"], needed, strict=True)
        for name, n in found.items()
        if n
    ]
    return told


def enough(errors: dict[int, float], bar: float) -> int:
    """The fewest passes with at most this error; the most that were tried if none is enough; 0 without any."""
    return next((n for n, e in sorted(errors.items()) if e <= bar), max(errors, default=0))
