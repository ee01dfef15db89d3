"""Phases, resume, early stop, precision: on a tiny network, in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seglens.core.errors import BadParameter, Cancelled, ModelMismatch, UnknownName
from seglens.core.run import Run
from seglens.models.loaders import load_model
from seglens.models.spec import ClassSpec, ModelSpec, Normalisation
from seglens.training import Phase, Recipe, train
from seglens.training.data import Sample
from seglens.training.module import frozen, groups, rest_still
from seglens.training.tasks import Batch, Task, encode, find_task

from .folders import write_folder

CLASSES = (ClassSpec("background", "#00000000"), ClassSpec("blob", "#26c6da"))
SPEC = ModelSpec("tiny", "YX", ("grey",), CLASSES, normalisation=Normalisation("zscore"))
# Dropout, so that a resumed training only ends the same if every random draw is the same.
NET = {"in_channels": 1, "out_channels": 2, "features": [4, 8], "dropout": 0.2}
PLAN = (Phase("warm-up", 1, 1e-2, only=("head",)), Phase("joint", 3, 1e-2, {"encoder": 1e-3}))
TINY = Recipe(SPEC, NET, "light", border=0, crop=32, batch=2, steps=3, phases=PLAN)


class Telling(Task):
    """Shifts the head after the warm-up and tells of it, as a projection of prototypes does."""

    def after(self, phase: str, network: nn.Module, samples: Sequence[Sample], run: Run) -> dict[str, Any]:
        """Uses chance, a whole image, and what it told before."""
        batch = encode(samples[0], self.recipe, 2)
        logits = self.predict(network, batch.image)
        with torch.no_grad():
            next(network.get_submodule("head").parameters()).add_(torch.rand(()) / 100)
        return {"name": samples[0].name, "mean": float(logits.detach().mean()), "before": sorted(self.told)}

    def save(self, network: nn.Module, out: Path, samples: Sequence[Sample]) -> None:
        """A folder of its own, as crops are."""
        (out / "crops").mkdir()
        (out / "crops" / "told.json").write_text(json.dumps(self.told))

    def describe(self) -> str:
        """One sentence."""
        return "The head was shifted."


TOLD = replace(TINY, task=f"{__name__}.Telling")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny"), 6)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training."""
    return train(TOLD, data, tmp_path_factory.mktemp("whole") / "out", run=Run(seed=1))


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def stopping_at(step: int) -> Run:
    run = Run(seed=1)
    run.on_progress = lambda done, total, text: run.cancel() if done == step else None
    return run


def test_phases_follow_each_other_and_are_recorded(whole: Path) -> None:
    record = json.loads((whole / "training.json").read_text())
    warm, joint = record["phases"]
    assert (warm["name"], len(warm["validation"]), len(warm["loss"])) == ("warm-up", 1, 1)
    assert (joint["name"], len(joint["validation"]), len(joint["loss"])) == ("joint", 3, 3)
    assert joint["best_epoch"] == 1 + joint["validation"].index(max(joint["validation"]))
    assert (warm["after"]["before"], joint["after"]["before"]) == ([], ["warm-up"])
    assert record["epochs"] == 4
    told = json.loads((whole / "crops" / "told.json").read_text())
    assert told == {"warm-up": warm["after"], "joint": joint["after"]}
    assert not (whole / "checkpoint").exists()


@pytest.mark.parametrize("step", [4, 7, 9, 11])
def test_a_resumed_training_ends_in_the_same_weights(data: Path, whole: Path, tmp_path: Path, step: int) -> None:
    """Stopped in the first batch of the second phase, of a later epoch, in its last batch, and in the last epoch."""
    out = tmp_path / "out"
    with pytest.raises(Cancelled):
        train(TOLD, data, out, run=stopping_at(step))
    assert [f.name for f in out.iterdir()] == ["checkpoint"]
    steps: list[int] = []
    run = Run(seed=1, on_progress=lambda done, total, text: steps.append(done) if "epoch" in text else None)
    train(TOLD, data, out, run=run, resume=True)
    assert steps[0] == (step - 1) // 3 * 3 + 1
    assert weights(out) == weights(whole)
    assert (out / "training.json").read_text() == (whole / "training.json").read_text()


def test_a_training_killed_between_epochs_goes_on(data: Path, whole: Path, tmp_path: Path) -> None:
    """Killed while the second checkpoint is written: the first one is still whole."""

    class Killed(BaseException):
        pass

    def kill(done: int, total: int, text: str) -> None:
        if done == 8:
            raise Killed

    out = tmp_path / "out"
    with pytest.raises(Killed):
        train(TOLD, data, out, run=Run(seed=1, on_progress=kill))
    (out / "checkpoint" / "state.pt.new").write_bytes(b"half")
    assert weights(train(TOLD, data, out, run=Run(seed=1), resume=True)) == weights(whole)


def test_cancelled_while_it_is_scored_nothing_has_to_be_trained_again(data: Path, whole: Path, tmp_path: Path) -> None:
    out, run = tmp_path / "out", Run(seed=1)
    run.on_progress = lambda done, total, text: run.cancel() if "scoring" in text else None
    with pytest.raises(Cancelled):
        train(TOLD, data, out, run=run)
    texts: list[str] = []
    train(TOLD, data, out, run=Run(seed=1, on_progress=lambda done, total, text: texts.append(text)), resume=True)
    assert not any("epoch" in text for text in texts)
    assert weights(out) == weights(whole)


def test_only_the_same_training_can_be_resumed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadParameter, match="no checkpoint") as nothing:
        train(TINY, data, out, run=Run(seed=1), resume=True)
    assert "--resume" in nothing.value.fix
    with pytest.raises(Cancelled):
        train(TINY, data, out, run=stopping_at(5))
    with pytest.raises(BadParameter, match="interrupted") as again:
        train(TINY, data, out, run=Run(seed=1))
    assert "--resume" in again.value.fix
    with pytest.raises(BadParameter, match="its seed differ"):
        train(TINY, data, out, run=Run(seed=2), resume=True)
    with pytest.raises(BadParameter, match="its epochs differ"):
        train(TINY, data, out, run=Run(seed=1), epochs=9, resume=True)
    (out / "checkpoint" / "state.pt").write_bytes(b"broken")
    with pytest.raises(ModelMismatch, match="cannot be read"):
        train(TINY, data, out, run=Run(seed=1), resume=True)


def test_a_finished_model_is_not_trained_over(data: Path, whole: Path) -> None:
    with pytest.raises(BadParameter, match="finished model"):
        train(TOLD, data, whole, run=Run(seed=1), resume=True)


def test_it_stops_when_nothing_gets_better(data: Path, tmp_path: Path) -> None:
    still = replace(TINY, phases=(Phase("still", 9, 1e-12), Phase("last", 1, 1e-12)))
    out = train(still, data, tmp_path / "out", run=Run(), patience=2)
    record = json.loads((out / "training.json").read_text())
    assert (len(record["phases"][0]["validation"]), record["phases"][0]["stopped_early"]) == (3, True)
    assert len(record["phases"][1]["validation"]) == 1
    assert "--patience 2" in record["command"]
    assert "(stopped early)" in (out / "CARD.md").read_text()


def test_half_precision_trains_and_is_recorded(data: Path, tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watching(Task):
        def predict(self, network: nn.Module, image: Tensor) -> Tensor:
            logits = super().predict(network, image)
            seen.append(logits.dtype)
            return logits

    globals()["Watching"] = Watching
    recipe = replace(TINY, task=f"{__name__}.Watching", phases=())
    out = train(recipe, data, tmp_path / "out", run=Run(precision="bf16"), epochs=1)
    assert set(seen) == {torch.bfloat16}
    record = json.loads((out / "training.json").read_text())
    assert record["precision"] == "bf16"
    assert "--precision bf16" in record["command"]


def test_parameters_learn_by_their_prefix() -> None:
    net = nn.Sequential()
    net.add_module("head", nn.Linear(2, 2))
    net.add_module("header", nn.Linear(2, 2, bias=False))
    assert groups(net, Phase("all", 1, 0.1)) == {0.1: ["head.weight", "head.bias", "header.weight"]}
    assert groups(net, Phase("one", 1, 0.1, only=("head",))) == {0.1: ["head.weight", "head.bias"]}
    slow = Phase("slow", 1, 0.1, {"head": 0.01, "head.bias": 0.0})
    assert groups(net, slow) == {0.01: ["head.weight"], 0.1: ["header.weight"]}
    with pytest.raises(BadParameter, match="'heads'") as wrong:
        groups(net, Phase("typo", 1, 0.1, only=("heads",)))
    assert "head, header" in wrong.value.fix
    with pytest.raises(BadParameter, match="Nothing learns"):
        groups(net, Phase("none", 1, 0.1, {"head": 0.0, "header": 0.0}))


def test_what_is_frozen_moves_in_nothing(data: Path, tmp_path: Path) -> None:
    """Nor do the means of its batch norms, which plain training would move."""
    start: dict[str, Tensor] = {}

    class Before(Task):
        def loss(self, network: nn.Module, batch: Batch, phase: str) -> Tensor:
            start.update(start or {k: v.clone() for k, v in network.state_dict().items()})
            return super().loss(network, batch, phase)

        def after(self, phase: str, network: nn.Module, samples: Sequence[Sample], run: Run) -> dict[str, Any]:
            moved = {k for k, v in network.state_dict().items() if not torch.equal(v, start[k])}
            return {"moved": sorted(moved)}

    globals()["Before"] = Before
    recipe = replace(TINY, task=f"{__name__}.Before", phases=(Phase("last", 1, 1e-2, only=("head",)),))
    out = train(recipe, data, tmp_path / "out", run=Run())
    moved = json.loads((out / "training.json").read_text())["phases"][0]["after"]["moved"]
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_freezing_ends_with_the_phase() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    with frozen(net, ["0.weight"]):
        rest_still(net)
        assert (net[0].training, net[1].training) == (True, False)
        assert [p.requires_grad for p in net.parameters()] == [True, False, False, False]
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]


def test_epochs_are_shared_out_between_the_phases() -> None:
    recipe = replace(TINY, phases=(Phase("a", 1, 1.0), Phase("b", 10, 1.0), Phase("c", 2, 1.0)))
    for epochs in (3, 4, 5, 13, 20, 130):
        parts = [phase.epochs for phase in recipe.plan(epochs)]
        assert sum(parts) == epochs
        assert min(parts) >= 1
    assert [phase.epochs for phase in recipe.plan(130)] == [10, 100, 20]
    with pytest.raises(BadParameter, match="3 phases"):
        recipe.plan(2)


def test_a_schedule_by_each_name_trains(data: Path, tmp_path: Path) -> None:
    plan = tuple(Phase(name, 1, 1e-3, schedule=name) for name in ("cosine", "polynomial", "constant"))
    out = train(replace(TINY, phases=plan), data, tmp_path / "out", run=Run())
    assert len(json.loads((out / "training.json").read_text())["phases"]) == 3


def test_a_network_of_monai_that_sees_everything_gets_tiles_of_its_crops(data: Path, tmp_path: Path) -> None:
    """Instance norm reaches over the whole image."""
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 4, 4, 4, 4, 4]}
    recipe = replace(TINY, spec=SPEC.with_(divisor=16), network="monai:BasicUNet", arguments=arguments, phases=())
    out = train(recipe, data, tmp_path / "out", run=Run(), epochs=1)
    spec = load_model(out).spec
    assert (spec.reach, spec.tile, spec.divisor) == (None, (32, 32), 16)
    assert "Every pixel may influence the whole image" in (out / "CARD.md").read_text()


def test_a_task_is_found_by_its_path() -> None:
    assert find_task("seglens.training.tasks.Task") is Task
    for wrong in ("Task", "seglens.training.tasks.Tusk", "seglens.no.Task", "seglens.training.tasks.Batch"):
        with pytest.raises(UnknownName):
            find_task(wrong)


def test_half_precision_without_room_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="fp16") as caught:
        train(TINY, data, tmp_path / "out", run=Run(precision="fp16"))
    assert "bf16" in caught.value.fix
