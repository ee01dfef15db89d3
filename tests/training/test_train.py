"""Training end to end on tiny data, and the errors a person can meet on the way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seglens.core.errors import BadParameter, Cancelled, ImageMismatch, ModelMismatch, UnknownName
from seglens.core.run import Run
from seglens.models.loaders import load_model
from seglens.models.spec import ModelSpec
from seglens.training import RECIPES, train
from seglens.training import recipes as recipes_module
from seglens.training.evaluate import evaluate, main, predict

from .folders import blobs, write_folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fluorescence recipe with a small network and few, small crops."""
    usual = RECIPES["nuclei-fluorescence"]
    arguments = {"in_channels": 1, "out_channels": 3, "features": [8, 16]}
    tiny = replace(usual, arguments=arguments, crop=48, batch=4, steps=12, rate=2e-2)
    monkeypatch.setattr(recipes_module, "RECIPES", {**RECIPES, "nuclei-fluorescence": tiny})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny"), 10)


def test_a_training_writes_a_folder_that_reloads_and_repeats(data: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    run = Run(seed=3, on_progress=lambda *state: told.append(state))
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    out = train("nuclei-fluorescence", data, tmp_path / "one", run=run, epochs=2)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])

    assert {f.name for f in out.iterdir()} == {"weights.safetensors", "model.json", "training.json", "CARD.md"}
    assert (24, 24) in [state[:2] for state in told]

    stored = json.loads((out / "model.json").read_text())
    assert stored.pop("network") == {
        "name": "unet",
        "arguments": {"in_channels": 1, "out_channels": 3, "features": [8, 16]},
    }
    spec = ModelSpec.from_dict(stored)
    assert (spec.divisor, spec.reach, spec.halo) == (2, 9, (10, 10))
    assert spec.sha256 == hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()

    record = json.loads((out / "training.json").read_text())
    assert (record["seed"], record["epochs"]) == (3, 2)
    assert str(tmp_path) not in (out / "training.json").read_text()
    assert evaluate(out, data) == record["test"]
    assert set(record["test"]["images"]) == set(record["split"]["test"])

    again = train("nuclei-fluorescence", data, tmp_path / "two", run=Run(seed=3), epochs=2)
    assert (again / "weights.safetensors").read_bytes() == (out / "weights.safetensors").read_bytes()

    image = blobs(50)[0][..., None]
    assert np.array_equal(predict(load_model(out), image), predict(load_model(again), image))
    assert main([str(out), str(data)]) == 0


def test_cancel_stops_within_a_batch_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    run, batches = Run(), []

    def stop(done: int, total: int, text: str) -> None:
        batches.append(done)
        if done == 2:
            run.cancel()

    run.on_progress = stop
    with pytest.raises(Cancelled):
        train("nuclei-fluorescence", data, tmp_path / "out", run=run)
    assert max(batches) == 2
    assert not (tmp_path / "out").exists()


def test_cancelled_before_it_starts(data: Path, tmp_path: Path) -> None:
    run = Run()
    run.cancel()
    with pytest.raises(Cancelled):
        train("nuclei-fluorescence", data, tmp_path / "out", run=run)


def test_it_writes_nothing_into_the_current_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    train("nuclei-fluorescence", data, tmp_path / "out", run=Run(), epochs=1)
    assert not list(here.iterdir())
    assert capsys.readouterr() == ("", "")


def test_wrong_calls_say_what_to_do(data: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "note.txt").write_text("mine")
    with pytest.raises(UnknownName, match="nuclei-flourescence") as unknown:
        train("nuclei-flourescence", data, tmp_path / "out", run=Run())
    assert "Did you mean nuclei-fluorescence?" in unknown.value.fix
    with pytest.raises(BadParameter, match="not empty") as occupied:
        train("nuclei-fluorescence", data, full, run=Run())
    assert "--out" in occupied.value.fix
    with pytest.raises(BadParameter, match="epochs=0"):
        train("nuclei-fluorescence", data, tmp_path / "out", run=Run(), epochs=0)
    with pytest.raises(BadParameter, match="needs images"):
        train("nuclei-fluorescence", None, tmp_path / "out", run=Run())
    with pytest.raises(ImageMismatch):
        train("nuclei-fluorescence", tmp_path / "nowhere", tmp_path / "out", run=Run())
    assert not (tmp_path / "out").exists()


def test_evaluating_what_is_no_model(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelMismatch):
        evaluate(tmp_path, data)
    assert main([str(tmp_path), str(data)]) == 2
    assert "model.json" in capsys.readouterr().err
    assert main([]) == 2
