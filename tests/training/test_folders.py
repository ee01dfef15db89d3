"""Ready-made shares, class masks, several annotators, volumes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imsave

from seglens.core.errors import ImageMismatch
from seglens.core.run import Run
from seglens.models.spec import ClassSpec, ModelSpec, Normalisation
from seglens.training import Recipe, train
from seglens.training.augment import AUGMENTATIONS, crop_pair
from seglens.training.batches import Crops, encode
from seglens.training.data import Sample, annotators, read_folder
from seglens.training.evaluate import evaluate
from seglens.training.folders import find_pairs, split_folder
from seglens.training.losses import UNKNOWN

from .folders import blobs

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = ("background", "one", "two")
SPEC = ModelSpec(
    "tiny", "YX", ("grey",), tuple(ClassSpec(n, "#26c6da") for n in NAMES), normalisation=Normalisation("zscore")
)
TINY = Recipe(
    SPEC,
    {"in_channels": 1, "out_channels": 3, "features": [4, 8]},
    "light",
    truth="classes",
    measure="classes",
    border=0,
    crop=32,
    batch=2,
    steps=3,
    epochs=1,
)


def write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray, masks: str = "masks") -> None:
    for part, array in (("images", image), (masks, mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        imsave(folder / part / f"{name}.png", array.astype(np.uint8), check_contrast=False)


def classes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = blobs(seed)
    return image, np.where(mask > 0, 1 + mask % 2, 0)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shares in folders of their own; the same name in two of them."""
    data = tmp_path_factory.mktemp("ready")
    for share, seeds in {"train": (0, 1, 2), "val": (0,), "test": (0, 5)}.items():
        for seed in seeds:
            write(data / share, f"a{seed}", *classes(seed + len(share)))
    return data


def test_ready_made_shares_are_kept(ready: Path) -> None:
    assert split_folder(ready) == {
        "train": ["train/a0", "train/a1", "train/a2"],
        "validation": ["validation/a0"],
        "test": ["test/a0", "test/a5"],
    }


def test_training_and_evaluation_keep_them_apart(ready: Path, tmp_path: Path) -> None:
    out = train(TINY, ready, tmp_path / "out", run=Run())
    record = json.loads((out / "training.json").read_text())
    assert set(record["test"]["images"]) == {"test/a0", "test/a5"}
    assert set(record["test"]["classes"]) <= {"one", "two"}
    assert evaluate(out, ready) == record["test"]
    card = (out / "CARD.md").read_text()
    assert "3 for train, 1 for validation, 2 for test, split as the folders" in card
    assert "class numbers" in card


def test_a_folder_without_test_images_says_so_in_the_card(ready: Path, tmp_path: Path) -> None:
    shutil.copytree(ready, tmp_path / "data", ignore=shutil.ignore_patterns("test"))
    out = train(TINY, tmp_path / "data", tmp_path / "out", run=Run())
    assert "No images were held out" in (out / "CARD.md").read_text()
    assert json.loads((out / "training.json").read_text())["test"] == {"images": {}}


def test_shares_without_validation_are_refused(ready: Path, tmp_path: Path) -> None:
    shutil.copytree(ready, tmp_path / "data", ignore=shutil.ignore_patterns("val"))
    with pytest.raises(ImageMismatch, match="none called val") as caught:
        split_folder(tmp_path / "data")
    assert str(tmp_path / "data" / "val") in caught.value.fix


def test_a_class_that_the_recipe_has_not_is_named(tmp_path: Path) -> None:
    image, mask = classes(0)
    write(tmp_path, "a", image, mask * 3)
    with pytest.raises(ImageMismatch, match="class 6") as caught:
        read_folder(tmp_path, ["a"], SPEC, classes=True)
    assert "Number the classes" in caught.value.fix


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Ada and Bob drew two images, Eve one of them; on a gold mask they agreed for one."""
    for name, drawn in {"a": {"ada": 1, "bob": 1, "eve": 2}, "b": {"ada": 1, "bob": 2}}.items():
        image, mask = blobs(3)
        for who, number in drawn.items():
            write(tmp_path, name, image, (mask > 0) * number, f"masks/{who}")
    write(tmp_path, "b", blobs(3)[0], (blobs(3)[1] > 0) * 2, "gold")
    return tmp_path


def test_several_annotators_are_read_and_the_truth_is_agreed_or_the_majority(people: Path) -> None:
    a, b = read_folder(people, list(find_pairs(people)), SPEC, classes=True)
    assert annotators([a, b]) == ("ada", "bob", "eve")
    assert (set(a.annotators), set(b.annotators)) == ({"ada", "bob", "eve"}, {"ada", "bob"})
    assert set(np.unique(a.truth)) == {0, 1}
    assert set(np.unique(b.truth)) == {0, 2}


def test_each_annotator_is_cropped_with_the_image(people: Path) -> None:
    samples = read_folder(people, list(find_pairs(people)), SPEC, classes=True)
    crops = Crops(samples, TINY, Run())
    seen = set()
    for number in range(len(crops)):
        _, labels, more = crops[number]
        assert more["annotators"].shape == (3, *labels.shape)
        ada, bob, eve = more["annotators"]
        both = "b" if bool((eve == UNKNOWN).all()) else "a"
        seen.add(both)
        assert torch.equal(ada > 0, labels > 0)
        assert torch.equal(bob, ada if both == "a" else 2 * ada)
        if both == "a":
            assert torch.equal(eve, 2 * ada)
    assert seen == {"a", "b"}


def test_object_numbers_of_people_become_classes_each_by_itself() -> None:
    _, mask = blobs(1)
    sample = Sample("a", blobs(1)[0][..., None], mask, annotators={"ada": mask, "bob": mask * 0})
    recipe = replace(TINY, truth="instances", border=2)
    batch = encode(sample, recipe, divisor=4, people=("ada", "bob", "eve"))
    ada, bob, eve = batch.more["annotators"][0]
    assert torch.equal(ada, batch.labels[0])
    assert set(ada.unique().tolist()) == {0, 1, 2}
    assert not bob.any()
    assert bool((eve == UNKNOWN).all())


def test_volumes_are_cropped_and_turned_as_one() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((6, 40, 40)) > 0.9).astype(np.int32)
    image = truth[..., None].astype(np.float32)
    for seed in range(8):
        crop, cut = crop_pair(image, truth, 16, (1.0, 1.0), np.random.default_rng(seed))
        assert crop.shape == (16, 16, 16, 1)
        assert np.array_equal(crop[..., 0], cut)
    crop, cut = crop_pair(image, truth, 16, (0.7, 0.7), np.random.default_rng(0))
    assert crop.shape[:3] == cut.shape == (16, 16, 16)
    for name in ("flips", "light", "fluorescence"):
        assert AUGMENTATIONS[name](crop, cut, np.random.default_rng(1)).shape == crop.shape


def test_a_volume_recipe_trains(tmp_path: Path) -> None:
    import tifffile

    for seed in range(3):
        rng = np.random.default_rng(seed)
        mask = np.zeros((8, 24, 24), np.uint8)
        mask[2:6, 4:14, 6:16] = 1
        for part, array in (("images", mask * 50 + rng.integers(0, 9, mask.shape)), ("labels", mask)):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(
                tmp_path / "data" / part / f"v{seed}.tif", array.astype(np.uint8), metadata={"axes": "ZYX"}
            )
    spec = SPEC.with_(axes="ZYX", classes=SPEC.classes[:2])
    arguments = {"in_channels": 1, "out_channels": 2, "features": [4, 8], "dims": 3}
    out = train(replace(TINY, spec=spec, arguments=arguments, crop=16), tmp_path / "data", tmp_path / "out", run=Run())
    assert json.loads((out / "model.json").read_text())["axes"] == "ZYX"


def test_the_superalloy_has_ready_made_shares_and_classes() -> None:
    data = DATA / "nasa_superalloy"
    if not data.is_dir():
        pytest.skip("the image set nasa_superalloy is not beside the project")
    split = split_folder(data)
    assert [len(names) for names in split.values()] == [10, 4, 4]
    (sample,) = read_folder(data, split["test"][:1], SPEC, classes=True)
    assert set(np.unique(sample.truth)) <= {0, 1, 2}


def test_the_phase_contrast_set_has_ten_annotations_and_a_gold_mask() -> None:
    data = DATA / "bubil1_phase"
    if not data.is_dir():
        pytest.skip("the image set bubil1_phase is not beside the project")
    pairs = find_pairs(data)
    (sample,) = read_folder(data, ["B01"], SPEC)
    assert len(pairs) == 20
    assert len(sample.annotators) == 10
    assert pairs["B01"].mask == data / "gold" / "B01.png"
