"""How many passes Shapley values take to be as exact as Captum's Kernel SHAP with 500 samples.

Two games of one random network: 12 units, where all 4096 coalitions give the exact values, and 64 units as in the
benchmark's row, where antithetic permutations give values whose own standard error is told, and is taken out of what
is compared with them.
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
from seglens.engine import fast

Values = NDArray[np.float64]
Answer = Callable[["Game", int, int], Values]  # game, passes (permutations of Captum's sampling), seed
CAPTUM = 500
LADDER = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512)  # passes of ours, until they suffice
SHOWN = (128, 256)  # passes of ours whose error is told, whatever suffices; 256 is what it takes by itself
PERMUTATIONS = {12: (4, 8, 16, 24, 32, 40, 48), 64: (1, 2, 3, 4, 6, 8, 12)}  # of Captum's sampling, likewise
TRUTH = 24  # permutations and their reverses, for the truth of 64 units
BATCH = 16


@dataclass(frozen=True)
class Game:
    """Units of a scene that can be taken away.

    Args:
        scene: the network and the image.
        units: how many.
        truth: Shapley values.
        doubt: root mean square of the truth's own standard errors; 0 if it is exact.
        value: coalitions (N, units) of 0 and 1 to numbers (N,) in float64.
    """

    scene: Scene
    units: int
    truth: Values
    doubt: float
    value: Callable[[Tensor], Tensor]

    @property
    def scale(self) -> float:
        """Root mean square of the truth."""
        return float(np.sqrt(np.mean(self.truth**2)))

    def error(self, answer: Answer, passes: int, repeats: int) -> float:
        """Root mean square error over units and seeds without the truth's own, as a share of the truth's size."""
        answers = np.stack([answer(self, passes, seed) for seed in range(repeats)])
        return float(np.sqrt(max(0.0, np.mean((answers - self.truth) ** 2) - self.doubt**2))) / self.scale


def playing(scene: Scene, grid: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The network's answers to coalitions: time is no question here, so in the layout that is fastest."""
    numbers, unit = score(scene), cells(scene, grid)[0, 0]

    @torch.inference_mode()
    def value(keep: Tensor) -> Tensor:
        copies = (fast.arranged(scene.x * part.float()[:, unit].unsqueeze(1)) for part in keep.split(BATCH))
        with fast.kept_memory(scene.model()):
            return torch.cat([numbers(x)[:, 0] for x in copies])

    return value


def twelve(shape: tuple[int, int], network: str = "basicunet") -> Game:
    """All coalitions are played once; from then on they are looked up."""
    scene = Scene(network, shape)
    bits = 2 ** torch.arange(12)
    every = (torch.arange(2**12)[:, None] // bits % 2).bool()
    table = playing(scene, (3, 4))(every)
    values, sizes = table.numpy(), every.sum(1).numpy()
    truth = np.empty(12)
    for unit in range(12):
        without = np.flatnonzero(~every[:, unit].numpy())
        share = np.array([1 / (12 * comb(11, s)) for s in sizes[without]])
        truth[unit] = (share * (values[without + 2**unit] - values[without])).sum()
    return Game(scene, 12, truth, 0.0, lambda keep: table[(keep.long() * bits).sum(1)])


def sixty_four(shape: tuple[int, int], permutations: int, network: str = "basicunet") -> Game:
    """Truth from permutations and their reverses, and its standard error from how far these pairs are apart."""
    scene, units = Scene(network, shape), 64
    value = playing(scene, (8, 8))
    rng = np.random.default_rng(5)
    found = np.zeros((permutations, units))
    for pair in found:
        order = rng.permutation(units)
        for line in (order, order[::-1]):
            keep = torch.zeros(units + 1, units, dtype=torch.bool)
            for (_, after), unit in zip(pairwise(range(units + 1)), line, strict=True):
                keep[after:, unit] = True
            pair[line] += np.diff(value(keep).numpy()) / 2
    doubt = float(np.sqrt(np.mean(found.var(0, ddof=1) / permutations)))
    return Game(scene, units, found.mean(0), doubt, value)


def ours(solver: str) -> Answer:
    """Our Kernel SHAP, as anybody calls it."""

    def answer(game: Game, passes: int, seed: int) -> Values:
        from seglens.core.run import Run
        from seglens.session import explain

        scene = game.scene
        found = explain(
            "kernel-shap", scene.image(), scene.model(), scene.target("class"), run=Run(seed=seed), units="grid",
            pieces=game.units, fill="black", samples=passes, solver=solver,
        )  # fmt: skip
        return np.array(found.tables[0].columns["Shapley value"], float)

    return answer


def captum(name: str) -> Answer:
    """A method of Captum on coalitions as its input."""

    def answer(game: Game, samples: int, seed: int) -> Values:
        import captum.attr

        torch.manual_seed(seed)
        method = getattr(captum.attr, name)(lambda keep: game.value(keep > 0.5).float())
        found = method.attribute(
            torch.ones(1, game.units), baselines=0.0, n_samples=samples, perturbations_per_eval=BATCH
        )
        return found[0].double().numpy()

    return answer


def climb(game: Game, answer: Answer, steps: list[tuple[int, int]], bar: float, repeats: int) -> dict[str, Any]:
    """Errors by passes, upwards until one is no larger than ``bar``.

    Args:
        game, answer: who plays what.
        steps: passes, and what the answer is asked for.
        bar: the error to reach.
        repeats: seeds.

    Returns:
        ``errors`` by passes; ``enough``, the passes that suffice, or ``None``, and what was ``asked`` for there.
    """
    errors: dict[int, float] = {}
    for passes, asked in steps:
        errors[passes] = game.error(answer, asked, repeats)
        if errors[passes] <= bar:
            return {"errors": errors, "enough": passes, "asked": asked}
    return {"errors": errors, "enough": None, "asked": steps[-1][1]}


def compared(title: str, game: Game, repeats: int) -> dict[str, Any]:
    """All answers of one game; plain data."""
    from seglens.core.catalogue import METHODS

    bar = game.error(captum("KernelShap"), CAPTUM, repeats)
    steps = [(p * game.units + 1, p) for p in PERMUTATIONS[game.units]]
    told: dict[str, Any] = {
        "Captum Kernel SHAP": {"errors": {CAPTUM: bar}, "enough": CAPTUM, "asked": CAPTUM},
        "Captum sampling": climb(game, captum("ShapleyValueSampling"), steps, bar, repeats),
    }
    if "kernel-shap" in METHODS:
        for name, solver, least in (
            ("SegLens", "gaussian-process", LADDER[0]),
            ("SegLens, least squares", "least-squares", 2 * (game.units + 1)),
        ):
            steps = [(n, n) for n in sorted({*LADDER, least}) if n >= least]
            told[name] = climb(game, ours(solver), steps, bar, repeats)
            more = {n: game.error(ours(solver), n, repeats) for n in SHOWN if n >= least and game.units > 12}
            told[name]["errors"] = more | told[name]["errors"]
    doubt = game.doubt / game.scale
    return {"title": title, "units": game.units, "doubt": doubt, "repeats": repeats, "answers": told}


def accuracy(repeats: int) -> dict[str, Any]:
    """Errors by passes, and the passes that equal accuracy takes.

    Args:
        repeats: seeds; below 3 all is tiny, to see that it works.

    Returns:
        ``games`` with their errors, and ``passes`` for the benchmark's row, which has 64 units.
    """
    quick = repeats < 3
    truth = 2 if quick else TRUTH
    games = [
        compared("12 units, true values from all 4096 coalitions", twelve((48, 64) if quick else (96, 128)), repeats),
        compared(
            f"64 units, true values from {truth} random permutations and their reverses",
            sixty_four((32, 32) if quick else (128, 128), truth),
            repeats,
        ),
    ]
    last = games[-1]["answers"]
    passes = {"captum ShapleyValueSampling": last["Captum sampling"]["asked"]}
    if "SegLens" in last:
        # ours must do in both games
        passes["ours"] = max(game["answers"]["SegLens"]["asked"] for game in games)
    return {"games": games, "passes": passes}
