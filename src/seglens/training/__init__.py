"""Training: recipes, data, augmentation, one trainer, evaluation on held-out images.

``seglens.training.evaluate`` is the module that scores a trained folder; it has a command line of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seglens.training.recipe import Phase, Recipe
from seglens.training.recipes import RECIPES

if TYPE_CHECKING:
    from seglens.core.run import Run

__all__ = ["RECIPES", "Phase", "Recipe", "train"]


def train(
    recipe: str | Recipe,
    data: Path | None,
    out: Path,
    *,
    run: Run,
    epochs: int | None = None,
    network: str | None = None,
    patience: int | None = None,
    licence: str | None = None,
    resume: bool = False,
) -> Path:
    """Train a recipe and write the model folder.

    Args:
        recipe: a key of :data:`RECIPES`, the path of a recipe as a JSON file, or a recipe.
        data: a folder as :mod:`seglens.training.folders` describes it; ``None`` for drawn pictures.
        out: a new or empty folder for ``weights.safetensors``, ``model.json``, ``training.json``, ``CARD.md``.
        run: seed, precision, progress and cancel. Cancelling stops within a batch; what is left in ``out`` is the
            checkpoint of the last whole epoch, and nothing before the first.
        epochs: how long to train, all phases together; ``None`` is the recipe's own length.
        network: a key of :data:`seglens.models.nets.NETWORKS`; ``None`` is the recipe's own.
        patience: a phase ends after so many epochs without a better validation; ``None`` is the recipe's own.
        licence: of the model, for its card; ``None`` is what the recipe says.
        resume: go on from the checkpoint in ``out``; ends in the same weights as without the interruption.

    Returns:
        ``out``.

    Raises:
        UnknownName: no such recipe or network.
        BadParameter: ``out`` is not empty, a number is outside its limits, data are needed, or the checkpoint to
            resume from is missing or belongs to another training.
        ImageMismatch: the data folder is missing, empty, or an image has no mask that fits.
        Cancelled: the run was cancelled.
    """
    # Late, so that names, recipes and the drawn pictures can be used without torch.
    from seglens.training.trainer import train as run_training

    return run_training(
        recipe,
        data,
        out,
        run=run,
        epochs=epochs,
        network=network,
        patience=patience,
        licence=licence,
        resume=resume,
    )
