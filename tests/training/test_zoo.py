"""The shipped weights do what their records say."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from seglens.core.files import open_image
from seglens.core.run import Run
from seglens.engine.prototypes import PrototypeView, prototypes_of
from seglens.engine.reach import measure_reach
from seglens.models.loaders import load_model
from seglens.models.spec import ModelSpec
from seglens.training import RECIPES
from seglens.training.data import read_folder
from seglens.training.evaluate import predict, score, shortcut_rates

ZOO = Path(str(files("seglens"))) / "models" / "zoo"
DATA = Path(__file__).parents[3] / "shared" / "data"
SHIPPED = sorted(card.parent.name.replace("_", "-") for card in ZOO.glob("*/CARD.md"))
SETS = {
    "nuclei-fluorescence": "dsb2018_fluo",
    "nuclei-histology": "dsb2018_histology",
    "proto-histology": "dsb2018_histology",
    "proto-superalloy": "nasa_superalloy",
}


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


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("proto-")])
def test_shipped_prototypes_have_crops_and_name_no_path(name: str) -> None:
    model = load_model(name)
    prototypes = prototypes_of(model)
    labels = {p.label for p in prototypes}
    assert labels == {c.name for c in model.spec.classes}
    assert all(p.image and p.name and min(p.crop.shape[:2]) >= 24 and np.ptp(p.crop) > 0 for p in prototypes)
    assert not any(p.source for p in prototypes)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("proto-")])
def test_shipped_prototypes_are_pixels_of_their_images(name: str) -> None:
    data = DATA / SETS[name]
    if not data.is_dir():
        pytest.skip(f"the image set {data.name} is not beside the project")
    model = load_model(name)
    images = {image.name: image for image in map(open_image, data.rglob("images/*"))}
    for one in prototypes_of(model)[::4]:
        image = images[one.name]
        assert image.fingerprint() == one.image
        view = PrototypeView(model, image, Run())
        place = tuple(
            p * n // full for p, n, full in zip(one.position, view.features.shape[1:], view.shape, strict=True)
        )
        assert float(view.similarities[(one.number - 1, *place)]) > 9.1
        (top, bottom), (left, right) = one.box
        pixels = image.read("YXC")[top:bottom, left:right].squeeze()
        np.testing.assert_array_equal(one.crop, pixels)


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
