"""What a training is after: the loss, the score that chooses an epoch, and what follows a phase.

A recipe that needs more than a network and a loss names a class of its own, a child of :class:`Task`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from seglens.core.errors import UnknownName
from seglens.core.run import Run
from seglens.training.batches import Batch, encode
from seglens.training.data import Sample
from seglens.training.losses import UNKNOWN, loss_named
from seglens.training.recipe import Recipe
from seglens.training.scores import overlap

__all__ = ["Batch", "Task", "encode", "find_task"]


class Task:
    """Plain segmentation: the recipe's loss on the network's logits.

    ``criterion`` is that loss, of logits (N, K, *space) and labels (N, *space).
    ``told`` holds what :meth:`after` returned in the phases that are done, by the name of the phase; it is kept
    over a resume, nothing else of a task is.
    """

    def __init__(self, recipe: Recipe, run: Run) -> None:
        """A task belongs to one training."""
        self.recipe, self.run = recipe, run
        self.told: dict[str, dict[str, Any]] = {}
        self.criterion = loss_named(recipe.loss)

    def arguments(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        """What the network is built with; here a task may add what the training samples tell."""
        return self.recipe.arguments

    def loss(self, network: nn.Module, batch: Batch, phase: str) -> Tensor:
        """The loss of a batch, in the phase of this name: ()."""
        return self.criterion(self.predict(network, batch.image), batch.labels)

    def predict(self, network: nn.Module, image: Tensor) -> Tensor:
        """Logits (N, K, *space) of images (N, C, *space)."""
        logits: Tensor = network(image)
        return logits

    def score(self, logits: Tensor, labels: Tensor) -> float:
        """How good the logits of an image (1, K, *space) are, higher is better; labels (1, *space).

        Dice of the foreground, or the mean Dice of the foreground classes that are in the truth or were
        found, as the recipe's ``measure`` says.
        """
        known = labels != UNKNOWN
        found = logits.argmax(1)
        if self.recipe.measure == "foreground":
            return overlap((found > 0) & known, labels > 0)["dice"]
        numbers = range(1, logits.shape[1])
        pairs = [((found == k) & known, labels == k) for k in numbers]
        scores = [overlap(one, other)["dice"] for one, other in pairs if one.any() or other.any()]
        return float(np.mean(scores)) if scores else 1.0

    def after(self, phase: str, network: nn.Module, samples: Sequence[Sample], run: Run) -> dict[str, Any]:
        """What follows a phase, such as a projection of prototypes; may change the network.

        Args:
            phase: the name of the phase that has just ended.
            network: in eval mode, with the weights that the phase ends with, on the CPU.
            samples: the training images as they are, with their truth; :func:`encode` makes a
                batch of one.
            run: seed, progress and cancel.

        Returns:
            Plain data for ``training.json``.
        """
        return {}

    def save(self, network: nn.Module, out: Path, samples: Sequence[Sample]) -> None:
        """Write further files of the model folder; weights, model, record and card are there already."""

    def describe(self) -> str:
        """Sentences for the model card: what was learned, and how."""
        return ""


def find_task(path: str) -> type[Task]:
    """The task class of a dotted path.

    Raises:
        UnknownName: nothing of that name, or no task.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UnknownName(f"There is no task {path!r}.", fix="Name a child of seglens.training.tasks.Task.")
    return found
