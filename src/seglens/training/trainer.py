"""The one trainer: a recipe, a folder of images and masks, and out comes a model folder."""

from __future__ import annotations

import hashlib
import logging
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.engine.reach import measure_reach
from seglens.models.loaders.networks import MONAI, make_network
from seglens.models.nets import check_name
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec
from seglens.training.augment import find_augmentation
from seglens.training.batches import Crops, Whole
from seglens.training.card import write_card
from seglens.training.data import Sample, draw, drawn_names, read_folder
from seglens.training.evaluate import score, shortcut_rates
from seglens.training.export import MODEL, TRAINING, save_model, versions, write_json
from seglens.training.folders import split_folder
from seglens.training.recipe import Phase, Recipe
from seglens.training.recipes import find_recipe
from seglens.training.standing import CHECKPOINT, Standing, load, save
from seglens.training.tasks import Task, find_task

Shares = dict[str, list[Sample]]


@dataclass(frozen=True)
class Order:
    """What was asked for.

    Args:
        name: of the recipe.
        recipe: with all options applied.
        data: the folder; ``None`` for drawn pictures.
        out: the model folder.
        epochs: as asked for; ``None`` for the recipe's own.
        options: words of the command line beside recipe, data, folder, epochs and seed.
    """

    name: str
    recipe: Recipe
    data: Path | None
    out: Path
    epochs: int | None
    options: tuple[str, ...]

    @property
    def plan(self) -> tuple[Phase, ...]:
        """The phases, as long as was asked for."""
        return self.recipe.plan(self.epochs)

    @property
    def checkpoint(self) -> Path:
        """Where checkpoints lie."""
        return self.out / CHECKPOINT

    def command(self, seed: int) -> str:
        """The command that repeats it, naming no folder of this machine."""
        words = ["seglens", "train", self.name, *([] if self.recipe.synthetic else ["DATA"]), "--out", "DIR"]
        own = sum(phase.epochs for phase in self.recipe.plan())
        epochs = [] if self.epochs in (None, own) else ["--epochs", str(self.epochs)]
        return " ".join([*words, *self.options, *epochs, *(["--seed", str(seed)] if seed else [])])


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
    """Train a recipe and write the model folder; see :func:`seglens.training.train`."""
    order = _order(recipe, data, out, run, epochs, network, patience, licence)
    _check(order, resume, run)
    chosen = order.recipe
    task = find_task(chosen.task)(chosen, run)
    split = drawn_names() if chosen.synthetic or data is None else split_folder(data)
    shares = {share: _read(order, names, run) for share, names in split.items()}
    arguments = dict(task.arguments(shares["train"]))
    asked = _asked(order, shares, arguments, run)
    standing = load(order.checkpoint, asked) if resume else Standing()
    # The seed decides everything, and the caller's random state is as before when we are done.
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        made = make_network(chosen.network, arguments)
        if standing.network:
            made.load_state_dict(standing.network)
        _fit(made, task, order, shares, standing, run, lambda net: save(order.checkpoint, standing, net, asked))
    model = SegmentationModel(made, _finished_spec(made, chosen, run))
    record = {
        "recipe": order.name,
        "command": order.command(run.seed),
        "seed": run.seed,
        "epochs": sum(phase.epochs for phase in order.plan),
        "phases": standing.records,
        "crop": chosen.crop,
        "truth": chosen.truth,
        "synthetic": chosen.synthetic,
        "precision": run.precision,
        "device": _device(),
        "threads": torch.get_num_threads(),
        "settings": chosen.to_dict(),
        "data": {"sha256": asked["data"], "annotators": sorted({w for s in shares["train"] for w in s.annotators})},
        "split": split,
        "versions": versions(),
        "test": _test(model, chosen, shares["test"], split["test"], run),
    }
    _write(order, task, model, {"name": chosen.network, "arguments": arguments}, record, shares["train"])
    return out


def _order(
    named: str | Recipe,
    data: Path | None,
    out: Path,
    run: Run,
    epochs: int | None,
    network: str | None,
    patience: int | None,
    licence: str | None,
) -> Order:
    recipe, options = find_recipe(named) if isinstance(named, str) else named, []
    # A recipe's file is named without its folder: records name no place of this machine.
    name = recipe.spec.name if not isinstance(named, str) else Path(named).name
    if network is not None and network != recipe.network:
        recipe, options = recipe.with_network(network), ["--network", network]
    if patience is not None:
        recipe, options = replace(recipe, patience=patience), [*options, "--patience", str(patience)]
    if licence is not None:
        recipe = replace(recipe, spec=recipe.spec.with_(licence=licence))
        options = [*options, "--licence", f'"{licence}"']
    if run.precision != "full":
        options = [*options, "--precision", run.precision]
    return Order(name, recipe, data, out, epochs, tuple(options))


def _check(order: Order, resume: bool, run: Run) -> None:
    recipe, out = order.recipe, order.out
    if order.epochs is not None and order.epochs < 1:
        own = sum(phase.epochs for phase in recipe.plan())
        raise BadParameter(f"epochs={order.epochs} trains nothing.", fix=f"Use 1 or more; the recipe has {own}.")
    if run.precision == "fp16":
        raise BadParameter("precision=fp16 makes gradients vanish.", fix="Train in bf16 or full.")
    if recipe.patience is not None and recipe.patience < 1:
        raise BadParameter(f"patience={recipe.patience} stops at once.", fix="Use 1 epoch or more, or leave it out.")
    _ = order.plan
    if not recipe.network.startswith(MONAI):
        check_name(recipe.network)
    find_augmentation(recipe.augmentation)
    if (out / MODEL).is_file():
        raise BadParameter(f"{out} holds a finished model.", fix="Name a new folder with --out.")
    if not resume and order.checkpoint.is_dir():
        raise BadParameter(
            f"{out} holds a training that was interrupted.", fix="Go on with --resume, or name a new folder with --out."
        )
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadParameter(f"{out} is there already and not empty.", fix="Name a new folder with --out.")
    if order.data is None and not recipe.synthetic:
        raise BadParameter(
            f"{recipe.spec.name} needs images to learn from.", fix="Name a folder with images/ and masks/ in it."
        )


def _read(order: Order, names: list[str], run: Run) -> list[Sample]:
    run.check()
    recipe = order.recipe
    if recipe.synthetic or order.data is None:
        if order.data is not None:
            run.note(f"{order.name} draws its own pictures; {order.data} is not read.")
        return draw(names, recipe.crop)
    return read_folder(order.data, names, recipe.spec, classes=recipe.truth == "classes")


def _asked(order: Order, shares: Shares, arguments: dict[str, Any], run: Run) -> dict[str, Any]:
    """All that decides the weights, as plain data: a checkpoint goes on only where it is the same."""
    digest = hashlib.sha256()
    for share, samples in shares.items():
        for sample in samples:
            digest.update(f"{share} {sample.name} {sample.image.shape} {sample.image.dtype}".encode())
            for array in (sample.image, sample.truth, *(sample.annotators[w] for w in sorted(sample.annotators))):
                digest.update(array.tobytes())
    return {
        "recipe": order.recipe.to_dict(),
        "epochs": [asdict(phase) for phase in order.plan],
        "arguments": arguments,
        "seed": run.seed,
        "precision": run.precision,
        "data": digest.hexdigest(),
    }


def _fit(
    network: nn.Module,
    task: Task,
    order: Order,
    shares: Shares,
    standing: Standing,
    run: Run,
    keep: Callable[[nn.Module], None],
) -> None:
    """Train phase by phase, and leave the weights of the last one in the network, in eval mode."""
    crops = Crops(shares["train"], order.recipe, run)
    whole = Whole(shares["validation"], order.recipe, _divisor(network, order.recipe))
    task.told = standing.told()
    while standing.phase < len(order.plan):
        phase = order.plan[standing.phase]
        standing.begin(phase)
        if not standing.is_over(phase, order.recipe.patience):
            _fit_phase(network, task, order, (crops, whole), standing, run, keep)
        network.cpu()
        if phase.select_best:
            network.load_state_dict(standing.best_state)
        network.eval()
        torch.manual_seed(run.seed + standing.phase)
        standing.next(task.after(phase.name, network, shares["train"], run))
        task.told = standing.told()
        keep(network)


def _fit_phase(
    network: nn.Module,
    task: Task,
    order: Order,
    sets: tuple[Crops, Whole],
    standing: Standing,
    run: Run,
    keep: Callable[[nn.Module], None],
) -> None:
    # Lightning takes seconds to import; nobody else should wait for it.
    import lightning.pytorch as pl

    from seglens.training.module import Learner, Report, frozen

    crops, whole = sets
    phase = order.plan[standing.phase]
    learner = Learner(network, task, order.recipe, phase, standing)
    with _silent(), frozen(network, learner.learning):
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if run.precision == "bf16" else "32-true",
            max_epochs=phase.epochs - standing.epoch,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=5.0,
            callbacks=[Report(run, crops, standing, order.plan, keep)],
            default_root_dir=order.out,
        )
        # Generators of their own, so that the loaders draw nothing from the seed of an epoch.
        loaders = [DataLoader(s, n, generator=torch.Generator()) for s, n in ((crops, order.recipe.batch), (whole, 1))]
        with _interruptible():
            trainer.fit(learner, *loaders)


def _divisor(network: nn.Module, recipe: Recipe) -> int:
    return int(getattr(network, "divisor", recipe.spec.divisor))


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays what it is: Lightning would leave the process and make it deaf to the next one."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


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


def _finished_spec(network: nn.Module, recipe: Recipe, run: Run) -> ModelSpec:
    """The recipe's spec with what only the network knows: divisor, reach, and the context that a tile needs.

    A network that sees everything at once (attention, global pooling) gets tiles of the size of its crops.
    """
    divisor = _divisor(network, recipe)
    spec = recipe.spec.with_(divisor=divisor)
    everything = getattr(network, "sees_everything", False)
    reach = None if everything else measure_reach(SegmentationModel(network, spec))
    if reach is None:
        return spec.with_(tile=(recipe.crop,) * spec.ndim)
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


def _write(
    order: Order,
    task: Task,
    model: SegmentationModel,
    description: dict[str, Any],
    record: dict[str, Any],
    samples: list[Sample],
) -> None:
    """All files at once, the description last: what was cancelled or killed is never taken for a model."""
    scratch = order.checkpoint / "finished"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    spec = save_model(scratch, model.module, description, model.spec)
    write_json(scratch / TRAINING, record)
    write_card(scratch, spec, record, order.recipe, order.data, task.describe(), model.module)
    task.save(model.module, scratch, samples)
    for part in sorted(scratch.iterdir(), key=lambda p: p.name == MODEL):
        part.replace(order.out / part.name)
    shutil.rmtree(order.checkpoint)
