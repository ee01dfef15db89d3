"""The Lightning side of training: crops, the task, and the callbacks that report and keep the best weights.

Imported only when a training starts, because it imports Lightning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from seglens.core.run import Run
from seglens.training.augment import AUGMENTATIONS, crop_pair
from seglens.training.data import Sample, class_labels, normalise
from seglens.training.losses import segmentation_loss
from seglens.training.recipes import Recipe
from seglens.training.scores import overlap


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """``steps × batch`` augmented crops per epoch, each a pure function of (seed, epoch, number).

    An item is (C, crop, crop) normalised and (crop, crop) class numbers.
    """

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, run: Run) -> None:
        """Histology is augmented in 0…1 and normalised after; the others are normalised first."""
        self.recipe, self.run, self.epoch = recipe, run, 0
        how = recipe.spec.normalisation
        self.after = (how.then_mean, how.then_std)
        first = recipe.spec.with_(normalisation=replace(how, then_mean=0.0, then_std=1.0))
        self.samples = [(normalise(s.image, first, s.name), s.truth, s.classes) for s in samples]

    def __len__(self) -> int:
        """Crops per epoch."""
        return self.recipe.steps * self.recipe.batch

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """The crop of this number; stops here if the run was cancelled."""
        self.run.check()
        recipe = self.recipe
        rng = np.random.default_rng((self.run.seed, self.epoch, number))
        image, truth, classes = self.samples[int(rng.integers(len(self.samples)))]
        image, truth = crop_pair(image, truth, recipe.crop, recipe.zoom, rng)
        image = AUGMENTATIONS[recipe.augmentation](image, truth, rng)
        image = (image - self.after[0]) / self.after[1]
        labels = truth.astype(np.int64) if classes else class_labels(truth, recipe.border)
        return torch.from_numpy(image).float().movedim(-1, 0), torch.from_numpy(labels)


class Whole(Dataset[tuple[Tensor, Tensor]]):
    """Whole images, normalised (C, H, W), with their foreground (H, W); sides cut to the divisor."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe, divisor: int) -> None:
        """Nothing is augmented."""
        self.items = [(normalise(s.image, recipe.spec, s.name), s.truth > 0) for s in samples]
        self.divisor = divisor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Image and foreground."""
        image, truth = self.items[number]
        height, width = (n // self.divisor * self.divisor for n in truth.shape)
        cut = np.ascontiguousarray(image[:height, :width].transpose(2, 0, 1))
        return torch.from_numpy(cut), torch.from_numpy(truth[:height, :width].copy())


class SegmentationTask(pl.LightningModule):  # type: ignore[misc]
    """One network, one loss, AdamW on a one-cycle schedule; validates by Dice of the foreground per image."""

    def __init__(self, network: nn.Module, rate: float, steps: int) -> None:
        """``steps`` is the length of the whole schedule."""
        super().__init__()
        self.network, self.rate, self.steps = network, rate, steps
        self.dices: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch of crops."""
        image, labels = batch
        # Channels last makes convolutions on a CPU a third faster.
        return segmentation_loss(self.network(image.contiguous(memory_format=torch.channels_last)), labels)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self.dices = []

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Keep the Dice of one image."""
        image, truth = batch
        self.dices.append(overlap(self.network(image).argmax(1) > 0, truth)["dice"])

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle, stepped after every batch."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.rate / 10, weight_decay=1e-2)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=self.steps + 1, pct_start=0.15)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class Report(pl.Callback):  # type: ignore[misc]
    """Progress and cancel through the run, once a batch; the best weights by validation Dice."""

    def __init__(self, run: Run, crops: Crops, total: int) -> None:
        """``total`` is the number of batches of the whole training."""
        self.run, self.crops, self.total, self.text = run, crops, total, "training"
        self.best, self.best_epoch = -1.0, -1
        self.state: dict[str, Tensor] = {}
        self.history: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """New crops in every epoch."""
        self.crops.epoch = trainer.current_epoch

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop before the work of a batch if asked to."""
        self.run.check()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell where the training stands."""
        self.run.progress(trainer.global_step, self.total, self.text)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop before the next image if asked to."""
        self.run.check()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if no epoch was better."""
        if not isinstance(pl_module, SegmentationTask):
            return
        dice = float(np.mean(pl_module.dices))
        self.history.append(round(dice, 4))
        if dice > self.best:
            self.best, self.best_epoch = dice, trainer.current_epoch + 1
            self.state = {k: v.detach().cpu().clone() for k, v in pl_module.network.state_dict().items()}
        self.text = f"epoch {trainer.current_epoch + 1}, validation Dice {dice:.3f} (best {self.best:.3f})"
