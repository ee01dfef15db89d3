"""Augmentation: image and truth stay together, values stay usable, chance comes from the generator alone."""

from __future__ import annotations

import numpy as np
import pytest

from seglens.training.augment import AUGMENTATIONS, crop_pair
from seglens.training.data import class_labels

from .folders import blobs


@pytest.mark.parametrize("seed", range(12))
def test_crops_keep_image_and_truth_aligned(seed: int) -> None:
    _, mask = blobs(seed, 96)
    image = (mask > 0).astype(np.float32)[..., None]
    crop, truth = crop_pair(image, mask, 64, (0.6, 1.6), np.random.default_rng(seed))
    assert crop.shape == (64, 64, 1)
    assert truth.shape == (64, 64)
    # Linear against nearest sampling may differ on the outline only.
    differs = (crop[..., 0] > 0.5) != (truth > 0)
    assert differs.mean() < 0.02
    assert not (differs & (class_labels(truth, 2) == 1)).any()


def test_zoom_one_without_room_gives_the_image_itself_turned() -> None:
    image, mask = blobs(1)
    crop, truth = crop_pair(image[..., None].astype(np.float32), mask, 64, (1.0, 1.0), np.random.default_rng(0))
    assert sorted(crop.ravel()) == sorted(image.ravel().astype(np.float32))
    assert np.array_equal(np.unique(truth), np.unique(mask))


def test_an_image_smaller_than_the_crop_goes_on_as_its_mirror() -> None:
    image, mask = blobs(1, 40)
    crop, truth = crop_pair(image[..., None].astype(np.float32), mask, 64, (1.0, 1.0), np.random.default_rng(3))
    assert crop.shape[:2] == truth.shape == (64, 64)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_light_and_stain_follow_the_generator_and_stay_finite(name: str) -> None:
    grey, mask = blobs(3)
    channels = 3 if name == "histology" else 1
    image = np.repeat(1 - grey[..., None].astype(np.float32) / 255, channels, axis=-1)
    for seed in range(20):
        one, two = (AUGMENTATIONS[name](image, mask, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(one, two)
        assert one.shape == image.shape
        assert one.dtype == np.float32
        assert np.isfinite(one).all()
        if name == "histology":
            assert one.min() >= 0
            assert one.max() <= 1


def test_fluorescence_is_never_inverted() -> None:
    grey, mask = blobs(3)
    image = (grey[..., None].astype(np.float32) - 20) / 150
    for seed in range(30):
        changed = AUGMENTATIONS["fluorescence"](image, mask, np.random.default_rng(seed))[..., 0]
        assert changed[mask > 0].mean() > changed[mask == 0].mean()


def test_brown_crops_keep_nuclei_bluer_than_their_surroundings() -> None:
    from seglens.training.augment import _brown

    grey, mask = blobs(4)
    image = np.repeat(0.9 - 0.6 * grey[..., None].astype(np.float32) / 255, 3, axis=-1)
    for seed in range(20):
        painted = _brown(image, mask, np.random.default_rng(seed))
        blueness = painted[..., 2] - painted[..., 0]
        assert np.median(blueness[mask > 0]) > np.median(blueness[mask == 0])
