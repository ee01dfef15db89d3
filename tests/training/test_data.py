"""Folders, splits, reading, classes from instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from seglens.core.errors import ImageMismatch
from seglens.models.spec import Normalisation
from seglens.training import RECIPES
from seglens.training.data import class_labels, normalise, read_folder
from seglens.training.folders import find_pairs, split_names

from .folders import blobs, write_folder

GREY = RECIPES["nuclei-fluorescence"].spec


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    data = write_folder(tmp_path, 4)
    samples = read_folder(data, list(find_pairs(data)), GREY)
    assert [s.name for s in samples] == ["cell00", "cell01", "cell02", "cell03"]
    image, mask = blobs(2)
    assert np.array_equal(samples[2].image[..., 0], image)
    assert np.array_equal(samples[2].truth, mask)


def test_the_split_is_disjoint_complete_and_the_same_whatever_the_order() -> None:
    names = [f"image{i}" for i in range(400)]
    split = split_names(names)
    assert split == split_names(reversed(names))
    assert sorted(name for share in split.values() for name in share) == sorted(names)
    shares = [len(split[share]) / 400 for share in ("train", "validation", "test")]
    assert shares == pytest.approx([0.60, 0.15, 0.25], abs=0.06)


def test_adding_images_moves_none_from_its_share() -> None:
    few, many = split_names(f"image{i}" for i in range(100)), split_names(f"image{i}" for i in range(200))
    assert all(set(few[share]) <= set(many[share]) for share in few)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_a_small_folder_still_has_every_share(count: int) -> None:
    assert all(split_names(f"image{i}" for i in range(count)).values())


def test_two_images_are_too_few() -> None:
    with pytest.raises(ImageMismatch, match="2 images"):
        split_names(["a", "b"])


@pytest.mark.parametrize("border", [1, 2, 3])
def test_the_border_is_the_rim_inside_the_mask(border: int) -> None:
    _, mask = blobs(0)
    labels = class_labels(mask, border)
    assert np.array_equal(labels > 0, mask > 0)
    assert (labels == 2).any()
    assert (labels == 1).any()
    # A border pixel sees another object or the background within its width; a nucleus pixel does not.
    for y, x in np.argwhere(labels > 0):
        window = mask[max(0, y - border) : y + border + 1, max(0, x - border) : x + border + 1]
        assert (labels[y, x] == 2) == bool((window != mask[y, x]).any())


def test_touching_objects_are_parted_by_borders() -> None:
    mask = np.zeros((12, 24), np.int32)
    mask[2:10, 2:12], mask[2:10, 12:22] = 1, 2
    labels = class_labels(mask, 1)
    assert (labels[3:9, 11:13] == 2).all()
    assert (labels[3:9, 3:11] == 1).all()


def test_no_border_class_without_a_width() -> None:
    assert set(np.unique(class_labels(blobs(0)[1], 0))) == {0, 1}


def test_model_input_is_normalised_over_the_whole_image_without_clipping() -> None:
    image = np.arange(1000, dtype=np.uint16).reshape(20, 50, 1)
    spec = RECIPES["nuclei-fluorescence"].spec.with_(normalisation=Normalisation("percentile", low=10, high=90))
    x = normalise(image, spec)
    assert x.shape == image.shape
    assert np.percentile(x, [10, 90]) == pytest.approx([0, 1], abs=1e-5)
    assert x.min() < 0
    assert x.max() > 1


def test_a_constant_image_is_refused_by_its_name() -> None:
    with pytest.raises(ImageMismatch, match="cell09"):
        normalise(np.full((8, 8, 1), 7, np.uint8), RECIPES["nuclei-fluorescence"].spec, "cell09")


def test_missing_and_empty_folders_say_where_images_go(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for data in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ImageMismatch) as caught:
            find_pairs(data)
        assert str(data / "images") in caught.value.fix


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    data = write_folder(tmp_path, 3)
    (data / "masks" / "cell01.tif").unlink()
    with pytest.raises(ImageMismatch, match=r"cell01\.png") as caught:
        find_pairs(data)
    assert "cell01.tif" in caught.value.fix


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    data = write_folder(tmp_path, 3)
    imsave(data / "masks" / "cell01.tif", np.zeros((9, 9), np.uint16), check_contrast=False)
    with pytest.raises(ImageMismatch, match=r"cell01.png.*\(9, 9\)"):
        read_folder(data, ["cell01"], GREY)


def test_colour_images_are_refused_by_a_grey_recipe(tmp_path: Path) -> None:
    data = write_folder(tmp_path, 3)
    colour = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    imsave(data / "images" / "cell01.png", colour, check_contrast=False)
    with pytest.raises(ImageMismatch, match="3 channels") as caught:
        read_folder(data, ["cell01"], GREY)
    assert "nuclei-histology" in caught.value.fix


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    data = write_folder(tmp_path, 3)
    (data / "images" / "cell01.png").write_bytes(b"no image")
    with pytest.raises(ImageMismatch, match=r"cell01\.png"):
        read_folder(data, ["cell01"], GREY)
