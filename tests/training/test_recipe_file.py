"""Recipes as files of their own, and the card that a training writes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seglens.core.errors import BadParameter, ModelMismatch, SegLensError, UnknownName
from seglens.core.run import Run
from seglens.models.loaders import load_model
from seglens.training import RECIPES, Phase, train
from seglens.training.augment import AUGMENTATIONS
from seglens.training.losses import loss_named
from seglens.training.recipes import find_recipe
from seglens.training.tasks import find_task

from .folders import write_folder

BLOBS: dict[str, Any] = {
    "spec": {
        "name": "blobs",
        "axes": "YX",
        "channels": ["grey"],
        "classes": ["background", "blob"],
        "normalisation": {"kind": "zscore"},
        "licence": "CC0",
        "description": "Bright discs.",
    },
    "arguments": {"in_channels": 1, "out_channels": 2, "features": [4, 8]},
    "loss": "focal + dice",
    "border": 0,
    "crop": 32,
    "batch": 2,
    "steps": 3,
    "phases": [{"name": "first", "epochs": 1, "rate": 0.01}, {"name": "second", "epochs": 1, "rate": 0.001}],
}


def written(folder: Path, **changes: Any) -> str:
    file = folder / "blobs.json"
    file.write_text(json.dumps({**BLOBS, **changes}))
    return str(file)


def test_a_recipe_from_a_file_trains_and_leaves_a_card(tmp_path: Path) -> None:
    data = write_folder(tmp_path, 6)
    (data / "SOURCE.txt").write_text("set: drawn discs\nlicence: none needed\n")
    out = train(written(tmp_path), data, tmp_path / "out", run=Run(seed=2), licence="MIT")
    record = json.loads((out / "training.json").read_text())
    assert record["command"] == 'seglens train blobs.json DATA --out DIR --licence "MIT" --seed 2'
    assert [phase["name"] for phase in record["phases"]] == ["first", "second"]
    assert str(tmp_path) not in (out / "training.json").read_text()

    card = (out / "CARD.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in card
    for part in ("# blobs", "Bright discs.", "licence: none needed", "Licence of the model: MIT.", record["command"]):
        assert part in card
    for measure in ("dice", "iou"):
        for statistic in ("mean", "median"):
            assert f"{record['test'][measure][statistic]:.4f}" in card
    assert all(name in card for name in record["test"]["worst"])
    assert load_model(out).spec.licence == "MIT"
    plain = train(written(tmp_path), data, tmp_path / "plain", run=Run(), epochs=2)
    assert "as its recipe has it: CC0. Make sure that it fits" in (plain / "CARD.md").read_text()


def test_network_arguments_follow_from_the_classes(tmp_path: Path) -> None:
    file = tmp_path / "short.json"
    file.write_text(json.dumps({"spec": BLOBS["spec"], "border": 0}))
    assert find_recipe(str(file)).arguments == {"in_channels": 1, "out_channels": 2, "dims": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"corp": 3},
        {"crop": "big"},
        {"crop": 0},
        {"steps": True},
        {"zoom": [2, 1]},
        {"truth": "objects"},
        {"border": 2},
        {"task": "os.system"},
        {"phases": [{"name": "first"}]},
        {"phases": [3]},
        {"phases": [{"name": "first", "epochs": 1, "rate": 0.1, "schedule": "saw"}]},
        {"spec": {"name": "blobs"}},
        {"spec": 3},
    ],
)
def test_wrong_entries_say_what_to_write(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises((BadParameter, UnknownName, ModelMismatch)) as caught:
        find_recipe(written(tmp_path, **wrong))
    assert caught.value.fix


def test_wrong_names_are_told_before_the_data_are_read(tmp_path: Path) -> None:
    for wrong in ({"loss": "dise"}, {"augmentation": "fluoresence"}, {"network": "unett"}):
        with pytest.raises(SegLensError) as caught:
            train(written(tmp_path, **wrong), tmp_path / "nowhere", tmp_path / "out", run=Run())
        assert isinstance(caught.value, UnknownName), wrong
        assert "Did you mean" in caught.value.fix


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=r"none\.json cannot be read"):
        find_recipe(str(tmp_path / "none.json"))


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_fits_together(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.spec.name == name
    assert recipe.augmentation in AUGMENTATIONS
    loss_named(recipe.loss)
    find_task(recipe.task)
    assert recipe.plan()
    assert json.loads(json.dumps(recipe.to_dict()))["spec"]["name"] == name


PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_recipe_of_the_documentation_is_one(tmp_path: Path) -> None:
    whole, phases = (json.loads(text) for text in blocks("json"))
    file = tmp_path / "crystals.json"
    file.write_text(json.dumps({**whole, **phases}))
    recipe = find_recipe(str(file))
    assert [c.name for c in recipe.spec.classes] == ["background", "crystal", "pore"]
    assert recipe.plan(11)[0] == Phase("head", 1, 0.003, only=("head",))


def test_the_task_of_the_documentation_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks("python")
    (tmp_path / "outlines.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = find_recipe(written(tmp_path, phases=[], epochs=1))
    own = replace(recipe, task="outlines.ShortOutlines", options={"price": 0.5})
    out = train(own, write_folder(tmp_path, 5), tmp_path / "out", run=Run())
    (phase,) = json.loads((out / "training.json").read_text())["phases"]
    assert 0 <= phase["after"]["foreground"] <= 1
    assert "Long outlines cost." in (out / "CARD.md").read_text()
