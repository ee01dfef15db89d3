"""What the training dock asks of the trainer. Torch is imported in the worker, inside :func:`train`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from seglens.app.napari.jobs import Emit
from seglens.core.run import Run
from seglens.core.threads import wait_politely
from seglens.training.folders import split_folder
from seglens.training.recipes import RECIPES, find_recipe


@dataclass(frozen=True)
class About:
    """What a person wants to know of a recipe."""

    name: str
    description: str
    network: str
    phases: int
    epochs: int
    synthetic: bool


@dataclass(frozen=True)
class Trained:
    """What came out: the folder, and the mean Dice of the test images, if there were any."""

    folder: Path
    dice: float | None
    images: int


def recipe_names() -> list[str]:
    """All recipes."""
    return list(RECIPES)


def about(recipe: str) -> About:
    """Tell of a recipe by its name or file.

    Raises:
        SegLensError: there is none, or the file holds none.
    """
    found = find_recipe(recipe)
    plan, spec = found.plan(), found.spec
    epochs = sum(phase.epochs for phase in plan)
    return About(spec.name, spec.description, found.network, len(plan), epochs, found.synthetic)


def left(out: Path) -> tuple[int, int] | None:
    """Epochs and seed of the training that was stopped in a folder; ``None`` if nothing tells."""
    try:
        plan = json.loads((out / "checkpoint" / "plan.json").read_text(encoding="utf-8"))
        return sum(int(phase["epochs"]) for phase in plan["epochs"]), int(plan["seed"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def shares(data: Path) -> dict[str, list[str]]:
    """The names of a data folder by share.

    Raises:
        ImageMismatch: it cannot be trained on.
    """
    return split_folder(data)


def train(
    run: Run, emit: Emit, *, recipe: str, data: Path | None, out: Path, epochs: int | None, resume: bool
) -> Trained:
    """Train a model.

    Raises:
        SegLensError: what the trainer says.
    """
    wait_politely()
    from seglens.training import train as run_training
    from seglens.training.export import TRAINING

    folder = run_training(recipe, data, out, run=run, epochs=epochs, resume=resume)
    test = json.loads((folder / TRAINING).read_text(encoding="utf-8"))["test"]
    dice = test["dice"]["mean"] if test["images"] else None
    return Trained(folder, dice, len(test["images"]))
