"""Samples: images with their truth, read from files or drawn, and what a network learns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.io import imread

from seglens.core.errors import ImageMismatch
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.models.intake import fit_intake
from seglens.models.spec import ModelSpec
from seglens.sample_data.shortcut import shortcut_image
from seglens.training.folders import Files, find_pairs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """One image with its truth.

    Args:
        name: file name without its ending; ``train/NAME`` in a folder of ready-made shares.
        image: (*space, C) in its own data type.
        truth: (*space) object numbers, or class numbers if ``classes``.
        classes: ``truth`` already holds classes.
        annotators: what each of several annotators drew, in the same numbers as ``truth``.
        opened: the image as :func:`seglens.core.files.open_image` gives it, with fingerprint and source.
    """

    name: str
    image: Array
    truth: Array
    classes: bool = False
    annotators: Mapping[str, Array] = field(default_factory=dict)
    opened: Image | None = None


def read_sample(name: str, files: Files, spec: ModelSpec, *, classes: bool = False) -> Sample:
    """Read one image and its masks.

    Args:
        name: name of the sample.
        files: where they are.
        spec: axes, channels and classes of the model; alpha is dropped, equal colours count as grey.
        classes: the masks hold class numbers.

    Returns:
        The sample. Without an agreed mask its truth is what most annotators gave (the lower number of two).

    Raises:
        ImageMismatch: a file cannot be read, image and mask differ in size, channels or axes are wrong, or a
            class is unknown.
    """
    opened = _open(files.image)
    image = _pixels(opened, spec)
    shape = image.shape[:-1]
    read = {who: _mask(file, shape, files.image, spec, classes) for who, file in files.annotators.items()}
    truth = _mask(files.mask, shape, files.image, spec, classes) if files.mask else _majority([*read.values()], classes)
    # Ten annotators of a large image weigh much: in the smallest type that holds their numbers.
    slim = {who: mask.astype(np.min_scalar_type(int(mask.max()))) for who, mask in read.items()}
    return Sample(name, image, truth, classes, slim, opened)


def read_folder(data: Path, names: Sequence[str], spec: ModelSpec, *, classes: bool = False) -> list[Sample]:
    """The samples of these names; see :func:`find_pairs` and :func:`read_sample` for what can be wrong."""
    pairs = find_pairs(data)
    return [read_sample(name, pairs[name], spec, classes=classes) for name in names]


def _open(file: Path) -> Image:
    if file.suffix.lower() != ".bmp":
        return open_image(file)
    pixels = np.asarray(imread(file))
    return Image(pixels, "YXC"[: pixels.ndim], name=file.name, source=str(file))


def _pixels(opened: Image, spec: ModelSpec) -> Array:
    """(*space, C) with the channels that the model expects."""
    image = opened.read(spec.axes + "C")
    expected = len(spec.channels)
    if image.shape[-1] in (2, 4) and expected == image.shape[-1] - 1:
        image = image[..., :-1]
    if expected == 1 and image.shape[-1] >= 3 and bool((image[..., :3] == image[..., :1]).all()):
        image = image[..., :1]
    if image.shape[-1] != expected:
        raise ImageMismatch(
            f"{opened.name} has {image.shape[-1]} channels; the recipe expects {expected}.",
            fix="Choose nuclei-fluorescence for grey images, nuclei-histology for colour images.",
        )
    return image


def _mask(file: Path, shape: tuple[int, ...], image: Path, spec: ModelSpec, classes: bool) -> npt.NDArray[np.int32]:
    opened = _open(file)
    numbers = np.squeeze(opened.read(opened.kept))
    if numbers.shape != shape:
        raise ImageMismatch(
            f"{image.name} is {shape} and its mask {file.name} is {numbers.shape}.",
            fix="Save the mask as one plane of object or class numbers in the size of the image.",
        )
    numbers = numbers.astype(np.int32)
    if classes and int(numbers.max()) >= len(spec.classes):
        listing = ", ".join(f"{i} {c.name}" for i, c in enumerate(spec.classes))
        raise ImageMismatch(
            f"{file.name} holds the class {int(numbers.max())}; the recipe has {listing}.",
            fix="Number the classes from 0 as the recipe does, or name more classes in it.",
        )
    return numbers


def _majority(masks: Sequence[Array], classes: bool) -> npt.NDArray[np.int32]:
    """What most say; object numbers of different people are not comparable, so there only whether it is one."""
    votes = np.stack(masks) if classes else np.stack(masks) > 0
    counts = np.stack([(votes == k).sum(0) for k in range(int(votes.max()) + 1)])
    return np.asarray(counts.argmax(0), np.int32)


def annotators(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The names of all annotators of these samples, in order."""
    return tuple(sorted({who for sample in samples for who in sample.annotators}))


def drawn_names(train: int = 240, validation: int = 24, test: int = 40) -> dict[str, list[str]]:
    """The split of the drawn pictures; a name ends in the seed it is drawn from."""
    starts = {"train": (100_000, train), "validation": (200_000, validation), "test": (300_000, test)}
    return {share: [f"seed-{first + i}" for i in range(n)] for share, (first, n) in starts.items()}


def draw(names: Sequence[str], size: int) -> list[Sample]:
    """Pictures of :func:`~seglens.sample_data.shortcut.shortcut_image`, rings beside infected cells."""
    samples = []
    for name in names:
        image, classes, _, _ = shortcut_image(int(name.rpartition("-")[2]), size)
        opened = Image(image, "YX", name=name)
        samples.append(Sample(name, image[..., None], classes.astype(np.int32), classes=True, opened=opened))
    return samples


def class_labels(instances: Array, border: int) -> npt.NDArray[np.int64]:
    """Classes 0 background, 1 object, 2 border from object numbers, all (*space).

    The border is the rim of each object, ``border`` pixels wide and inside it, so that object and border
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
    """Model input (*space, C) from an image (*space, C), exactly as prediction makes it.

    Raises:
        ImageMismatch: the image called ``name`` is constant or holds values that are not numbers.
    """
    intake = fit_intake(Image(image, spec.axes + "C", name=name), spec)
    return np.ascontiguousarray(np.moveaxis(intake.to_input(np.moveaxis(image, -1, 0)), 0, -1))
