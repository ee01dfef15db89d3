"""The one trainer: a recipe, a folder of images and masks, and out comes a model folder."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from seglens.core.errors import BadParameter, ModelMismatch
from seglens.core.run import Run
from seglens.engine.reach import measure_reach
from seglens.models.nets import build_network
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec
from seglens.training.data import Sample, draw, drawn_names, find_pairs, read_folder, split_names
from seglens.training.evaluate import score, shortcut_rates
from seglens.training.export import TRAINING, save_model, versions, write_json
from seglens.training.recipes import Recipe, find_recipe, with_network

Shares = dict[str, list[Sample]]


def train(
    recipe: str, data: Path | None, out: Path, *, run: Run, epochs: int | None = None, network: str | None = None
) -> Path:
    """Train a recipe and write the model folder; see :func:`seglens.training.train`."""
    usual = find_recipe(recipe)
    chosen = usual if network is None or network == usual.network else with_network(usual, network)
    epochs = chosen.epochs if epochs is None else epochs
    _check(chosen, data, out, epochs)
    if chosen.synthetic and data is not None:
        run.note(f"{recipe} draws its own pictures; {data} is not read.")
    split = drawn_names() if chosen.synthetic or data is None else split_names(find_pairs(data))
    shares = {share: _read(chosen, data, names, run) for share, names in split.items()}
    # The seed decides everything, and the caller's random state is as before when we are done.
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        made = build_network(chosen.network, chosen.arguments)
        history = _fit(made, chosen, shares, epochs, run)
    model = SegmentationModel(made, _finished_spec(made, chosen))
    record = {
        "recipe": recipe,
        "command": _command(recipe, chosen, epochs, run.seed, chosen is usual),
        "seed": run.seed,
        "epochs": epochs,
        **history,
        "crop": chosen.crop,
        "synthetic": chosen.synthetic,
        "split": split,
        "versions": versions(),
        "test": _test(model, chosen, shares["test"], split["test"], run),
    }
    # Last, all at once: a training that was cancelled leaves nothing behind.
    out.mkdir(parents=True, exist_ok=True)
    save_model(out, made, {"name": chosen.network, "arguments": dict(chosen.arguments)}, model.spec)
    write_json(out / TRAINING, record)
    return out


def _command(name: str, recipe: Recipe, epochs: int, seed: int, usual: bool) -> str:
    words = ["seglens", "train", name, *([] if recipe.synthetic else ["DATA"]), "--out", "DIR"]
    words += [] if usual else ["--network", recipe.network]
    words += ["--epochs", str(epochs)] if epochs != recipe.epochs else []
    return " ".join(words + (["--seed", str(seed)] if seed else []))


def _check(recipe: Recipe, data: Path | None, out: Path, epochs: int) -> None:
    if epochs < 1:
        raise BadParameter(f"epochs={epochs} trains nothing.", fix=f"Use 1 or more; the recipe has {recipe.epochs}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadParameter(f"{out} is there already and not empty.", fix="Name a new folder with --out.")
    if data is None and not recipe.synthetic:
        raise BadParameter(
            f"{recipe.spec.name} needs images to learn from.", fix="Name a folder with images/ and masks/ in it."
        )


def _read(recipe: Recipe, data: Path | None, names: list[str], run: Run) -> list[Sample]:
    run.check()
    if recipe.synthetic or data is None:
        return draw(names, recipe.crop)
    return read_folder(data, names, len(recipe.spec.channels))


def _fit(network: nn.Module, recipe: Recipe, shares: Shares, epochs: int, run: Run) -> dict[str, Any]:
    """Train, and leave the best weights in the network."""
    # Lightning takes seconds to import; nobody else should wait for it.
    import lightning.pytorch as pl

    from seglens.training.module import Crops, Report, SegmentationTask, Whole

    crops = Crops(shares["train"], recipe, run)
    whole = Whole(shares["validation"], recipe, _divisor(network))
    total = epochs * recipe.steps
    reporter = Report(run, crops, total)
    with _silent(), tempfile.TemporaryDirectory() as scratch:
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=5.0,
            callbacks=[reporter],
            default_root_dir=scratch,
        )
        task = SegmentationTask(network, recipe.rate, total)
        trainer.fit(task, DataLoader(crops, recipe.batch), DataLoader(whole, 1))
    network.cpu().load_state_dict(reporter.state)
    network.eval()
    return {"best_epoch": reporter.best_epoch, "validation_dice": reporter.history}


def _divisor(network: nn.Module) -> int:
    return int(getattr(network, "divisor", 1))


@contextmanager
def _silent() -> Iterator[None]:
    """Lightning tells of devices and worker counts through logging and warnings; a run is told otherwise."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


def _finished_spec(network: nn.Module, recipe: Recipe) -> ModelSpec:
    """The recipe's spec with what only the network knows: divisor, reach, and the context that a tile needs.

    A network that sees everything at once (attention) gets tiles of the size that it was trained on.
    """
    divisor = _divisor(network)
    spec = recipe.spec.with_(divisor=divisor)
    if getattr(network, "sees_everything", False):
        return spec.with_(tile=(recipe.crop,) * spec.ndim)
    reach = measure_reach(SegmentationModel(network, spec))
    if reach is None:
        raise ModelMismatch(
            "One pixel influences nearly the whole image.",
            fix="Train a network without global pooling, attention and instance norm, or with fewer levels.",
        )
    halo = -(-reach.widest // divisor) * divisor
    return spec.with_(reach=reach.widest, halo=(halo,) * spec.ndim)


def _test(
    model: SegmentationModel, recipe: Recipe, samples: list[Sample], names: list[str], run: Run
) -> dict[str, Any]:
    result = score(model, samples, run)
    if recipe.synthetic:
        seeds = [int(name.rpartition("-")[2]) for name in names]
        result["shortcut"] = shortcut_rates(model, seeds, recipe.crop)
    return result
