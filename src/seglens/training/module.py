"""The Lightning side of training: the learner of one phase, and the callbacks that report, keep and stop.

Imported only when a training starts, because it imports Lightning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.training.batches import Batch, Crops, Item
from seglens.training.recipe import Phase, Recipe
from seglens.training.standing import Standing
from seglens.training.tasks import Task

Keep = Callable[[nn.Module], None]
LAYOUT = {4: torch.channels_last, 5: torch.channels_last_3d}


def groups(network: nn.Module, phase: Phase) -> dict[float, list[str]]:
    """Names of the parameters that learn in a phase, by their rate, in the order of the network.

    Raises:
        BadParameter: a prefix that names no parameter, or nothing is left to learn.
    """
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    for prefix in (*phase.only, *phase.rates):
        if not any(Phase("", 1, 1.0, only=(prefix,)).rate_of(name) for name in names):
            tops = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise BadParameter(
                f"The phase {phase.name!r} names {prefix!r}, and the network has no such parameters.",
                fix=f"Name the beginning of parameters: {tops}.",
            )
    found: dict[float, list[str]] = {}
    for name in names:
        rate = phase.rate_of(name)
        if rate > 0:
            found.setdefault(rate, []).append(name)
    if not found:
        raise BadParameter(
            f"Nothing learns in the phase {phase.name!r}.", fix="Give it a rate above 0, or leave the phase out."
        )
    return found


@contextmanager
def frozen(network: nn.Module, learning: Sequence[str]) -> Iterator[None]:
    """Only these parameters ask for gradients inside; afterwards it is as it was."""
    before = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    try:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in set(learning))
        yield
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(before[name])


def rest_still(network: nn.Module) -> None:
    """Train mode where something learns, eval mode where all is frozen: batch norms there keep their means."""
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


class Learner(pl.LightningModule):  # type: ignore[misc]
    """One network in one phase: the task's loss, AdamW, the phase's schedule; scores each validation image."""

    def __init__(self, network: nn.Module, task: Task, recipe: Recipe, phase: Phase, standing: Standing) -> None:
        """Goes on with the optimiser and schedule of ``standing``, if it holds them."""
        super().__init__()
        self.network, self.task, self.recipe, self.phase = network, task, recipe, phase
        self.standing, self.groups = standing, groups(network, phase)
        self.scores: list[float] = []

    @property
    def learning(self) -> list[str]:
        """Names of the parameters that learn."""
        return [name for names in self.groups.values() for name in names]

    def training_step(self, batch: Item, index: int) -> Tensor:
        """The loss of a batch of crops."""
        image, labels, more = batch
        # Channels last makes convolutions on a CPU a third faster.
        image = image.contiguous(memory_format=LAYOUT[image.ndim])
        return self.task.loss(self.network, Batch(image, labels, more), self.phase.name)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.scores = []

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Keep the score of one image."""
        image, labels = batch
        self.scores.append(self.task.score(self.task.predict(self.network, image), labels))

    def configure_optimizers(self) -> Any:
        """AdamW with a group per rate, stepped after every batch."""
        named = dict(self.network.named_parameters())
        rates = list(self.groups)
        sets = [{"params": [named[n] for n in names], "lr": rate / 10} for rate, names in self.groups.items()]
        optimizer = torch.optim.AdamW(sets, weight_decay=self.recipe.decay)
        schedule = _schedule(optimizer, self.phase, rates, self.phase.epochs * self.recipe.steps)
        if self.standing.optimizer:
            optimizer.load_state_dict(self.standing.optimizer)
            schedule.load_state_dict(self.standing.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _schedule(optimizer: torch.optim.Optimizer, phase: Phase, rates: list[float], steps: int) -> Any:
    if phase.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps + 1, pct_start=0.15)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = group["initial_lr"] = rate
    if phase.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if phase.schedule == "polynomial":
        return torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, steps)


class Report(pl.Callback):  # type: ignore[misc]
    """Progress and cancel through the run, once a batch; after each epoch where the training stands, kept."""

    def __init__(self, run: Run, crops: Crops, standing: Standing, plan: Sequence[Phase], keep: Keep) -> None:
        """``keep`` is called after each epoch, when ``standing`` tells of it."""
        self.run, self.crops, self.standing, self.keep = run, crops, standing, keep
        self.steps = crops.recipe.steps
        self.total = self.steps * sum(phase.epochs for phase in plan)
        # Epochs that a phase would have had, had it not stopped early, count as done.
        self.before = self.steps * sum(phase.epochs for phase in plan[: standing.phase])
        self.phase, self.many = plan[standing.phase], len(plan) > 1
        self.losses: list[Tensor] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Learner) -> None:
        """New crops and a fresh seed in every epoch, so that a resumed training draws the same."""
        self.crops.epoch = self.standing.epochs
        torch.manual_seed(_mixed(self.run.seed, self.standing.epochs))
        rest_still(pl_module.network)
        self.losses = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Learner, batch: Any, batch_idx: int) -> None:
        """Stop before the work of a batch if asked to."""
        self.run.check()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell where the training stands."""
        self.losses.append(outputs["loss"].detach())
        done = self.before + self.standing.epoch * self.steps + batch_idx + 1
        self.run.progress(done, self.total, self._text())

    def _text(self) -> str:
        where = f"{self.phase.name}, " if self.many else ""
        scores = self.standing.record["validation"]
        so_far = f", validation {scores[-1]:.3f} (best {self.standing.best:.3f})" if scores else ""
        return f"{where}epoch {self.standing.epoch + 1} of {self.phase.epochs}{so_far}"

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: Learner, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop before the next image if asked to."""
        self.run.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Learner) -> None:
        """Keep the weights if no epoch was better, leave a checkpoint, and stop if nothing gets better."""
        standing = self.standing
        loss = float(torch.stack(self.losses).mean())
        standing.ended(sum(pl_module.scores) / len(pl_module.scores), loss, pl_module.network)
        standing.optimizer = trainer.optimizers[0].state_dict()
        standing.schedule = trainer.lr_scheduler_configs[0].scheduler.state_dict()
        self.keep(pl_module.network)
        trainer.should_stop = standing.is_over(self.phase, pl_module.recipe.patience)


def _mixed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**63))
