"""What every contender takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.questions import Box, Question
from benchmarks.scenes import Scene


class Skip(Exception):
    """A contender cannot answer; its message says why."""


@dataclass(frozen=True)
class Asked:
    """A question to a contender.

    Args:
        scene, question: who is asked what.
        affordable: perturbed copies to score at most, at one ordinary forward each; more are scaled.
        limit: seconds after which ours is stopped, and scaled.
        passes: what equal accuracy takes, by contender (Kernel SHAP).
    """

    scene: Scene
    question: Question
    affordable: float
    limit: float
    passes: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Perturbed copies that a straight loop scores."""
        return self.question.evaluations(self.scene)


@dataclass
class Outcome:
    """An answer, and how much of the work was done for it.

    Args:
        done, total: passes made, and passes that the whole answer takes; where they differ the time is scaled.
        arrays: ``starts`` (n, D) and ``drops`` (n, T) of windows · ``map`` (*space) with ``starts`` of its windows ·
            ``channels`` of drops, the first ones or those of ``index``.
        details: plain data for the JSON.
        seconds: where only part of the time grows with the work: what to report instead of scaling.
        exactly: gives the arrays in double precision, to be compared; called when time is up.
    """

    done: int
    total: int
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    exactly: Callable[[], dict[str, NDArray[Any]]] | None = None


Go = Callable[[], Outcome]


def score(scene: Scene, targets: tuple[str, ...] = ("class",)) -> Callable[[Tensor], Tensor]:
    """Input (N, C, *space) to the targets' numbers (N, T) in float64."""
    module = scene.module
    return lambda x: scene.number(module(x), targets)


def starts(windows: list[Box]) -> NDArray[np.int64]:
    """First pixel of each window (n, D)."""
    return np.array([[s.start for s in window] for window in windows])


def cells(scene: Scene, grid: tuple[int, ...] = ()) -> Tensor:
    """Units of a grid (1, 1, *space), numbered from 0: 8 × 8, or 4 × 4 × 4 in 3-D, if nothing else is said."""
    grid = grid or {2: (8, 8), 3: (4, 4, 4)}[len(scene.shape)]
    unit = torch.zeros(scene.shape, dtype=torch.long)
    for axis, (n, count) in enumerate(zip(scene.shape, grid, strict=True)):
        line = torch.arange(n) * count // n
        unit = unit * count + line.reshape(-1, *(1,) * (len(scene.shape) - 1 - axis))
    return unit[None, None]
