"""The training dock: a model is trained beside everything else, stopped, gone on with, and used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool
from skimage.io import imsave

from seglens.app.napari import commands
from seglens.app.napari.training import texts
from seglens.app.napari.training.dock import TrainingDock, open_in
from seglens.training.folders import split_folder
from seglens.training.recipes import RECIPES

BLOBS = {
    "spec": {
        "name": "blobs",
        "axes": "YX",
        "channels": ["grey"],
        "classes": ["background", "blob"],
        "normalisation": {"kind": "zscore"},
        "description": "Bright discs.",
    },
    "arguments": {"in_channels": 1, "out_channels": 2, "features": [4, 8]},
    "border": 0,
    "crop": 32,
    "batch": 2,
    "steps": 4,
    "epochs": 3,
    "rate": 0.02,
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    file = tmp_path / "blobs.json"
    file.write_text(json.dumps(BLOBS))
    return str(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    y, x = np.mgrid[:48, :48]
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.hypot(y - rng.uniform(12, 36), x - rng.uniform(12, 36)) < 8
        image = 20 + 150 * mask + rng.normal(0, 8, mask.shape)
        for part, array in (("images", image), ("masks", mask)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            imsave(tmp_path / "data" / part / f"{number}.png", array.astype(np.uint8), check_contrast=False)
    return tmp_path / "data"


@pytest.fixture
def dock(make_napari_viewer: Any, qtbot: Any) -> Iterator[TrainingDock]:
    viewer = make_napari_viewer()
    made = open_in(viewer)
    assert made is not None
    yield made
    made.cancel()
    QThreadPool.globalInstance().waitForDone(10_000)
    qtbot.wait(20)


def choose(dock: TrainingDock, recipe: str, data: Path, out: Path) -> None:
    dock._fill(recipe)
    dock.data.line.setText(str(data))
    dock.out.line.setText(str(out))


def test_it_lists_the_recipes_and_says_what_is_missing(dock: TrainingDock) -> None:
    listed = [dock.recipe.itemText(i) for i in range(dock.recipe.count())]
    assert listed == [*RECIPES, texts.RECIPE_FILE]
    dock._fill("nuclei-histology")
    assert "Blue to purple nuclei" in dock.about.text()
    assert dock.epochs.text() == "as in the recipe (16)"
    assert not dock.button.isEnabled()
    assert dock.state.text() == texts.PICK_DATA
    dock._fill("shortcut-synthetic")
    assert (dock.found.text(), dock.data.isEnabled()) == (texts.DATA_NONE, False)
    assert dock.button.isEnabled()


def test_a_folder_is_looked_at_at_once(dock: TrainingDock, recipe: str, data: Path, tmp_path: Path) -> None:
    choose(dock, recipe, data, tmp_path / "out")
    assert dock.found.text() == texts.counted(split_folder(data))
    assert dock.found.text().startswith("6 images: ")
    assert dock.button.isEnabled()
    dock.data.line.setText(str(tmp_path))
    assert "holds no images" in dock.found.text().replace("\u200b", "")
    assert not dock.button.isEnabled()
    dock.data.line.setText(str(data))
    dock.out.line.setText(str(data))
    assert dock.state.text() == texts.OUT_TAKEN.format(name="data")
    dock.out.line.setText("")
    assert dock.state.text() == texts.NAME_OUT


def test_a_model_is_trained_and_can_be_chosen(
    dock: TrainingDock, recipe: str, data: Path, tmp_path: Path, qtbot: Any
) -> None:
    out = tmp_path / "out"
    choose(dock, recipe, data, out)
    dock.seed.setValue(3)
    told: list[str] = []
    dock.button.click()
    assert dock.job is not None
    assert dock.button.text() == texts.CANCEL
    assert not dock.recipe.isEnabled()
    dock.job.progressed.connect(lambda done, total, text, rate: told.append(f"{text} {done}/{total}"))
    qtbot.waitUntil(lambda: dock.job is None, timeout=60_000)
    assert any("epoch 3 of 3, validation" in text for text in told)
    record = json.loads((out / "training.json").read_text())
    assert record["seed"] == 3
    assert f"{record['test']['dice']['mean']:.3f}" in dock.banner.sentence.text()
    assert dock.recipe.isEnabled()
    assert dock.out.path == tmp_path / "out-2"
    other = commands.dock_of(dock.session.viewer)
    other.tabs.setCurrentIndex(1)
    dock.use.click()
    model = dock.session.model
    qtbot.waitUntil(lambda: model.loaded is not None, timeout=60_000)
    assert model.spec.name == "blobs"
    assert other.tabs.currentIndex() == 0


def test_a_stopped_training_goes_on(dock: TrainingDock, recipe: str, data: Path, tmp_path: Path, qtbot: Any) -> None:
    from seglens.core.run import Run
    from seglens.training import train

    out = tmp_path / "out"
    choose(dock, recipe, data, out)
    dock.button.click()
    job = dock.job
    # between two epochs a person is too slow: stop from where the training tells of a batch
    before = job.run.on_progress
    job.run.on_progress = lambda done, total, text: dock.job.run.cancel() if done == 6 else before(done, total, text)
    qtbot.waitUntil(lambda: dock.job is None, timeout=60_000)
    assert dock.banner.sentence.text() == texts.STOPPED
    assert dock.button.text() == texts.RESUME
    assert [f.name for f in out.iterdir()] == ["checkpoint"]
    dock.button.click()
    qtbot.waitUntil(lambda: dock.job is None, timeout=60_000)
    whole = train(recipe, data, tmp_path / "whole", run=Run())
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_cancel_before_the_first_epoch_leaves_nothing(
    dock: TrainingDock, recipe: str, data: Path, tmp_path: Path, qtbot: Any
) -> None:
    out = tmp_path / "out"
    choose(dock, recipe, data, out)
    dock.button.click()
    dock.button.click()
    assert dock.button.text() == texts.CANCELLING
    assert not dock.button.isEnabled()
    qtbot.waitUntil(lambda: dock.job is None, timeout=60_000)
    assert dock.banner.sentence.text() == texts.STOPPED_EARLY
    assert not out.exists()
    assert dock.button.text() == texts.START


def test_closing_the_dock_stops_the_training(
    make_napari_viewer: Any, recipe: str, data: Path, tmp_path: Path, qtbot: Any
) -> None:
    viewer = make_napari_viewer()
    dock = open_in(viewer)
    choose(dock, recipe, data, tmp_path / "out")
    dock.epochs.setValue(1000)
    dock.seed.setValue(4)
    dock.button.click()
    job = dock.job
    ended: list[bool] = []
    job.ended.connect(lambda: ended.append(True))
    qtbot.waitUntil(lambda: (tmp_path / "out" / "checkpoint" / "state.pt").exists(), timeout=60_000)
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: bool(ended), timeout=20_000)
    assert job.run.cancelled
    assert not (tmp_path / "out" / "model.json").exists()
    again = open_in(viewer)
    assert again is not dock
    choose(again, recipe, data, tmp_path / "out")
    assert (again.button.text(), again.epochs.value(), again.seed.value()) == (texts.RESUME, 1000, 4)


def test_what_cannot_be_trained_is_said_with_its_remedy(
    dock: TrainingDock, recipe: str, data: Path, tmp_path: Path, qtbot: Any
) -> None:
    imsave(data / "masks" / "0.png", np.zeros((5, 5), np.uint8), check_contrast=False)
    choose(dock, recipe, data, tmp_path / "out")
    dock.button.click()
    qtbot.waitUntil(lambda: dock.job is None, timeout=60_000)
    assert "its mask 0.png" in dock.banner.sentence.text().replace("\u200b", "")
    assert "Save the mask" in dock.banner.fix.text()
    assert dock.button.isEnabled()


def test_the_command_opens_it(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    commands.train_model()
    assert isinstance(viewer.window.dock_widgets[texts.TITLE], TrainingDock)


def test_it_is_opened_once_and_imports_no_torch(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    assert open_in(viewer) is open_in(viewer)
    code = "import sys; import seglens.app.napari.training.dock; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
