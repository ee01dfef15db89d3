"""A folder of images and instance masks: finding pairs, splitting them, reading them, classes from instances.

::

    DATA/images/NAME.png    grey (H, W) or colour (H, W, 3)
    DATA/masks/NAME.tif     instance numbers (H, W); 0 is background
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.io import imread

from seglens.core.errors import ImageMismatch
from seglens.core.image import Image
from seglens.models.intake import fit_intake
from seglens.models.spec import ModelSpec
from seglens.sample_data.shortcut import shortcut_image

Array = npt.NDArray[Any]
SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
SHARES = {"train": 0.60, "validation": 0.15, "test": 0.25}


@dataclass(frozen=True)
class Sample:
    """One image with its truth.

    Args:
        name: file name without its ending.
        image: (H, W, C) in its own data type.
        truth: (H, W) instance numbers, or class numbers if ``classes``.
        classes: ``truth`` already holds classes.
    """

    name: str
    image: Array
    truth: Array
    classes: bool = False


def find_pairs(data: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask of every name in a data folder, in the order of the names.

    Raises:
        ImageMismatch: no such folder, no image in it, or an image without a mask.
    """
    images = _by_stem(data / "images")
    masks = _by_stem(data / "masks")
    if not images:
        raise ImageMismatch(
            f"{data} holds no images.",
            fix=f"Put images into {data / 'images'} and instance masks of the same names into {data / 'masks'}.",
        )
    lonely = [name for name in images if name not in masks]
    if lonely:
        raise ImageMismatch(
            f"{len(lonely)} of {len(images)} images have no mask, the first is {images[lonely[0]].name}.",
            fix=f"Save its instance mask as {data / 'masks' / (lonely[0] + '.tif')}, or take the image out.",
        )
    return {name: (images[name], masks[name]) for name in sorted(images)}


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES}


def split_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of the shares ``train``, ``validation`` and ``test``, about 60, 15 and 25 of 100.

    A name's share follows from the name alone (its SHA-256), so that adding images moves none; only where a
    small folder would leave a share empty are the hashes ranked instead.

    Raises:
        ImageMismatch: fewer than three names.
    """
    places = {name: int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12 for name in sorted(names)}
    if len(places) < 3:
        raise ImageMismatch(
            f"There are {len(places)} images, too few to train, validate and test with.",
            fix="Add images with masks: three at the least, thirty or more for a useful model.",
        )
    split = _cut(places)
    if not all(split.values()):
        ranked = sorted(places, key=places.__getitem__)
        held = [max(1, round(SHARES[share] * len(ranked))) for share in ("validation", "test")]
        parts = np.split(ranked, np.cumsum(held))
        split = {share: sorted(map(str, parts[i])) for share, i in (("train", 2), ("validation", 0), ("test", 1))}
    return split


def _cut(places: dict[str, float]) -> dict[str, list[str]]:
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    split: dict[str, list[str]] = {share: [] for share in SHARES}
    for name, place in places.items():
        split[list(SHARES)[int(np.searchsorted(bounds, place, side="right"))]].append(name)
    return split


def read_pair(name: str, image_file: Path, mask_file: Path, channels: int) -> Sample:
    """Read one image and its mask.

    Args:
        name: name of the sample.
        image_file, mask_file: where they are.
        channels: what the model expects; an alpha channel is dropped, equal grey channels are joined.

    Raises:
        ImageMismatch: a file cannot be read, or image and mask differ in size, or the channels are wrong.
    """
    image, truth = _read(image_file), _read(mask_file)
    image = image[..., None] if image.ndim == 2 else image[..., : min(3, image.shape[-1])]
    if channels == 1 and image.shape[-1] == 3 and bool((image == image[..., :1]).all()):
        image = image[..., :1]
    if image.shape[-1] != channels:
        raise ImageMismatch(
            f"{image_file.name} has {image.shape[-1]} channels; the recipe expects {channels}.",
            fix="Choose nuclei-fluorescence for grey images, nuclei-histology for colour images.",
        )
    if image.shape[:2] != truth.shape:
        raise ImageMismatch(
            f"{image_file.name} is {image.shape[:2]} and its mask {mask_file.name} is {truth.shape}.",
            fix="Save the mask as one plane of instance numbers in the size of the image.",
        )
    return Sample(name, image, truth.astype(np.int32))


def _read(file: Path) -> Array:
    try:
        return np.asarray(imread(file))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageMismatch(
            f"{file.name} cannot be read: {error}.", fix="Save it again as PNG or TIFF, or take it out of the folder."
        ) from error


def read_folder(data: Path, names: Sequence[str], channels: int) -> list[Sample]:
    """The samples of these names; see :func:`find_pairs` and :func:`read_pair` for what can be wrong."""
    pairs = find_pairs(data)
    return [read_pair(name, *pairs[name], channels) for name in names]


def drawn_names(train: int = 240, validation: int = 24, test: int = 40) -> dict[str, list[str]]:
    """The split of the drawn pictures; a name ends in the seed it is drawn from."""
    starts = {"train": (100_000, train), "validation": (200_000, validation), "test": (300_000, test)}
    return {share: [f"seed-{first + i}" for i in range(n)] for share, (first, n) in starts.items()}


def draw(names: Sequence[str], size: int) -> list[Sample]:
    """Pictures of :func:`~seglens.sample_data.shortcut.shortcut_image`, rings beside infected cells."""
    samples = []
    for name in names:
        image, classes, _, _ = shortcut_image(int(name.rpartition("-")[2]), size)
        samples.append(Sample(name, image[..., None], classes.astype(np.int32), classes=True))
    return samples


def class_labels(instances: Array, border: int) -> npt.NDArray[np.int64]:
    """Classes 0 background, 1 nucleus, 2 border from instance numbers, all (H, W).

    The border is the rim of each object, ``border`` pixels wide and inside it, so that nucleus and border
    together are exactly the mask. An object cut by the edge of the image has no rim there.
    """
    foreground = instances > 0
    labels = foreground.astype(np.int64)
    if border > 0:
        width = 2 * border + 1
        highest = ndimage.maximum_filter(instances, width, mode="nearest")
        lowest = ndimage.minimum_filter(instances, width, mode="nearest")
        labels[foreground & (highest != lowest)] = 2
    return labels


def normalise(image: Array, spec: ModelSpec, name: str = "image") -> npt.NDArray[np.float32]:
    """Model input (H, W, C) from an image (H, W, C), exactly as prediction makes it.

    Raises:
        ImageMismatch: the image called ``name`` is constant or holds values that are not numbers.
    """
    intake = fit_intake(Image(image, "YXC", name=name), spec)
    return np.ascontiguousarray(intake.to_input(image.transpose(2, 0, 1)).transpose(1, 2, 0))
