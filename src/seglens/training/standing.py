"""Where a training stands after an epoch, and the checkpoint that keeps it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.errors import BadParameter, ModelMismatch
from seglens.training.export import write_json
from seglens.training.recipe import Phase

CHECKPOINT, STATE, PLAN = "checkpoint", "state.pt", "plan.json"
# What reading a broken file raises, in one way or another.
BROKEN = (OSError, ValueError, TypeError, RuntimeError, EOFError, LookupError, AttributeError)
State = dict[str, Tensor]


@dataclass
class Standing:
    """Plain data and tensors, all that a training needs to go on.

    Args:
        phase: number of the phase under way.
        epoch: epochs done in it.
        epochs: epochs done in all; crops are drawn from this number.
        best, best_state: best validation of this phase and its weights.
        network: weights after the last epoch, where they are not in a network.
        optimizer, schedule: their states; empty at the start of a phase.
        records: what is told of each phase: ``name``, ``validation`` and ``loss`` per epoch, ``best_epoch``.
    """

    phase: int = 0
    epoch: int = 0
    epochs: int = 0
    best: float = float("-inf")
    best_state: State = field(default_factory=dict)
    network: State = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        """What is told of the phase under way."""
        return self.records[self.phase]

    def begin(self, phase: Phase) -> None:
        """Start to tell of a phase, unless it is under way."""
        if len(self.records) == self.phase:
            self.records.append({"name": phase.name, "best_epoch": 0, "validation": [], "loss": []})

    def ended(self, score: float, loss: float, network: nn.Module) -> None:
        """Take note of an epoch, and of its weights if none was better."""
        self.epoch, self.epochs = self.epoch + 1, self.epochs + 1
        self.record["validation"].append(round(score, 4))
        self.record["loss"].append(round(loss, 5))
        if score > self.best or not self.best_state:
            self.best, self.record["best_epoch"] = score, self.epoch
            self.best_state = weights(network)

    def is_over(self, phase: Phase, patience: int | None) -> bool:
        """Whether the phase has had all its epochs, or none of the last ``patience`` was better."""
        if self.epoch >= phase.epochs:
            return True
        early = patience is not None and self.epoch - self.record["best_epoch"] >= patience
        if early:
            self.record["stopped_early"] = True
        return early

    def next(self, after: Mapping[str, Any]) -> None:
        """Go on to the next phase; ``after`` is what the task told at the end of this one."""
        if after:
            self.record["after"] = dict(after)
        self.phase, self.epoch, self.best = self.phase + 1, 0, float("-inf")
        self.best_state, self.optimizer, self.schedule = {}, {}, {}

    def told(self) -> dict[str, dict[str, Any]]:
        """What the task told after each phase, by its name."""
        return {record["name"]: record.get("after", {}) for record in self.records[: self.phase]}


def weights(network: nn.Module) -> State:
    """A copy of the state of a network, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def save(folder: Path, standing: Standing, network: nn.Module, plan: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one before stays whole until this one is.

    Args:
        folder: where; made if need be.
        standing: where the training stands.
        network: its weights are kept with it.
        plan: what the training was asked to do, so that only the same one goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLAN, plan)
    standing.network = weights(network)
    torch.save(vars(standing), folder / f"{STATE}.new")
    (folder / f"{STATE}.new").replace(folder / STATE)
    standing.network = {}


def load(folder: Path, plan: Mapping[str, Any]) -> Standing:
    """Read a checkpoint of the same plan.

    Raises:
        BadParameter: there is none, or it belongs to another training.
        ModelMismatch: the file is broken.
    """
    if not (folder / STATE).is_file():
        raise BadParameter(
            f"There is no checkpoint in {folder}.", fix="Leave --resume out: the training starts from its beginning."
        )
    try:
        # Tensors and plain data only: nothing in the file can run code.
        standing = Standing(**torch.load(folder / STATE, map_location="cpu", weights_only=True))
        kept = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (*BROKEN, pickle.UnpicklingError) as error:
        raise ModelMismatch(
            f"The checkpoint in {folder} cannot be read.", fix="Delete the folder and train from the beginning."
        ) from error
    plan = json.loads(json.dumps(plan))
    differs = [name for name in plan if plan[name] != kept.get(name)]
    if differs:
        raise BadParameter(
            f"The checkpoint in {folder} belongs to another training: its {' and '.join(differs)} differ.",
            fix="Resume with the same recipe, data and options, or name a new folder with --out.",
        )
    return standing
