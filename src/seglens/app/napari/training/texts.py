"""Every sentence of the training dock."""

from __future__ import annotations

from seglens.app.napari.words import took

TITLE = "Train a model"
RECIPE = "Recipe"
RECIPE_HINT = "What is learned: classes, network, loss and schedule"
RECIPE_FILE = "Open a recipe file…"
RECIPE_FILTER = "Recipes (*.json)"
DATA = "Data"
DATA_HINT = "A folder with images and masks in it; or with train, val and test, each with both"
DATA_ASK = "Open a folder of images and masks"
DATA_NONE = "This recipe draws its own pictures."
OUT = "Model"
OUT_HINT = "Where the finished model goes: a new folder"
OUT_ASK = "Folder for the model"
EPOCHS = "Epochs"
EPOCHS_HINT = "How long, all phases together; 0 is the recipe's own length"
EPOCHS_OWN = "as in the recipe ({count})"
SEED = "Seed"
SEED_HINT = "The same seed, data and recipe give the same weights"
CHOOSE = "Choose a folder"

PICK_DATA = "Choose a folder of images and masks."
NAME_OUT = "Name a folder for the model."
OUT_TAKEN = "{name} is there already and not empty. Name a new folder."
READY = "Ready"
READY_RESUME = "Ready to go on where it was stopped"
START, RESUME, CANCEL, CANCELLING = "Train", "Go on", "Cancel", "Cancelling…"
STOPPING = "Stopping after this batch…"
STARTING = "Reading the data…"
CANCEL_HINT = "Stops after this batch. The last whole epoch is kept, and you can go on from there."
STOPPED = "The training was stopped."
STOPPED_FIX = "Press Go on to continue from its last whole epoch."
STOPPED_EARLY = "The training was stopped before its first epoch was over. Nothing is kept."
USE = "Use this model"
USE_HINT = "Choose it in the Model tab"


def about(description: str, network: str, phases: int) -> str:
    """What a recipe is."""
    several = f", {phases} phases" if phases > 1 else ""
    return f"{description} Network: {network}{several}."


def counted(shares: dict[str, list[str]]) -> str:
    """What a data folder holds."""
    train, validation, test = (len(shares[share]) for share in ("train", "validation", "test"))
    return f"{train + validation + test} images: {train} to train, {validation} to validate, {test} to test."


def progress(text: str, done: int, total: int, pace: float) -> str:
    """The line above the progress bar; ``pace`` is seconds a step, 0 if it is not known yet."""
    left = f", {took((total - done) * pace)} left" if pace > 0 else ""
    return f"{text}: step {done} of {total}{left}"


def done(name: str, dice: float | None, images: int, seconds: float) -> tuple[str, str]:
    """A training is over: what came out, and where it is told of."""
    scored = f" Dice {dice:.3f} on {images} held-out images." if dice is not None else " No images were held out."
    return f"{name} is trained, in {took(seconds)}.{scored}", "CARD.md in its folder tells how it was made."
