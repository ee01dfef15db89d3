"""The shipped weights do what their records say."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from seglens.core.run import Run
from seglens.engine.reach import measure_reach
from seglens.models.loaders import load_model
from seglens.models.spec import ModelSpec
from seglens.training import RECIPES
from seglens.training.data import read_folder
from seglens.training.evaluate import predict, score, shortcut_rates

ZOO = Path(str(files("seglens"))) / "models" / "zoo"
DATA = Path(__file__).parents[3] / "shared" / "data"
SHIPPED = sorted(card.parent.name.replace("_", "-") for card in ZOO.glob("*/CARD.md"))
SETS = {"nuclei-fluorescence": "dsb2018_fluo", "nuclei-histology": "dsb2018_histology"}


def folder(name: str) -> Path:
    return ZOO / name.replace("-", "_")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_zoo_folder_is_complete_and_agrees_with_itself(name: str) -> None:
    here = folder(name)
    weights = here / "weights.safetensors"
    assert weights.stat().st_size <= 10_000_000
    model = load_model(here)
    assert model.spec.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert sum(p.numel() for p in model.module.parameters()) <= 2_000_000
    assert measure_reach(model).widest == model.spec.reach
    assert min(model.spec.halo or (0,)) >= (model.spec.reach or 0)
    expected = RECIPES[name].spec
    finished = ("divisor", "min_size", "reach", "halo", "sha256")
    assert model.spec.with_(**{k: getattr(expected, k) for k in finished}) == expected
    assert isinstance(model.spec, ModelSpec)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_tells_the_recorded_numbers(name: str) -> None:
    card = (folder(name) / "CARD.md").read_text(encoding="utf-8")
    record = json.loads((folder(name) / "training.json").read_text(encoding="utf-8"))
    assert record["command"] in card
    for measure in ("dice", "iou"):
        for statistic in ("mean", "median"):
            assert f"{record['test'][measure][statistic]:.4f}" in card
    for worst in record["test"]["worst"]:
        assert worst in card


@pytest.mark.parametrize(("name", "data"), SETS.items())
def test_recorded_scores_are_reproduced_on_held_out_images(name: str, data: str) -> None:
    if not (DATA / data).is_dir():
        pytest.skip(f"the image set {data} is not beside the project")
    recorded = json.loads((folder(name) / "training.json").read_text(encoding="utf-8"))["test"]["images"]
    small = list(recorded)[:3]
    model = load_model(folder(name))
    again = score(model, read_folder(DATA / data, small, model.spec), Run())["images"]
    for image in small:
        assert again[image]["dice"] == pytest.approx(recorded[image]["dice"], abs=2e-3)


def test_the_shortcut_model_reads_the_mark() -> None:
    rates = shortcut_rates(load_model(folder("shortcut-synthetic")), range(400_000, 400_006), 160)
    assert rates["right"] >= 0.95
    assert rates["removed_flips"] >= 0.8
    assert rates["moved_flips"] >= 0.8


def test_blue_nuclei_are_found_in_brown_tissue() -> None:
    from skimage.data import immunohistochemistry
    from skimage.measure import label

    image = immunohistochemistry()
    found = predict(load_model(folder("nuclei-histology")), image)
    nuclei = found > 0
    assert 60 <= label(found == 1).max() <= 500
    assert 0.05 <= nuclei.mean() <= 0.40
    blueness = image[..., 2].astype(int) - image[..., 0]
    assert np.median(blueness[nuclei]) > np.median(blueness[~nuclei]) + 20
    brown = blueness < -50
    assert nuclei[brown].mean() < 0.10
