"""Training: recipes, datasets, augmentation, one trainer, evaluation on held-out images.

``seglens.training.evaluate`` is the module that scores a trained folder; it has a command line of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seglens.training.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from seglens.core.run import Run

__all__ = ["RECIPES", "Recipe", "train"]


def train(
    recipe: str, data: Path | None, out: Path, *, run: Run, epochs: int | None = None, network: str | None = None
) -> Path:
    """Train a recipe and write the model folder.

    Args:
        recipe: a key of :data:`RECIPES`.
        data: a folder with ``images`` and ``masks``; ``None`` for drawn pictures.
        out: a new or empty folder for ``weights.safetensors``, ``model.json``, ``training.json``.
        run: seed, progress and cancel; cancelling stops within a batch and writes nothing.
        epochs: how long to train; ``None`` is the recipe's own length.
        network: a key of :data:`seglens.models.nets.NETWORKS`; ``None`` is the recipe's own.

    Returns:
        ``out``.

    Raises:
        UnknownName: no such recipe or network.
        BadParameter: ``out`` is not empty, ``epochs`` is less than 1, or data are needed.
        ImageMismatch: the data folder is missing, empty, or an image has no mask that fits.
        Cancelled: the run was cancelled.
    """
    # Late, so that names, recipes and the drawn pictures can be used without torch.
    from seglens.training.trainer import train as run_training

    return run_training(recipe, data, out, run=run, epochs=epochs, network=network)
