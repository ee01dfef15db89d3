"""Random changes of training crops. Image and truth are cut, zoomed and turned together; light and stain alone.

Everything takes a ``numpy`` generator and is a pure function of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from seglens.core.errors import UnknownName

Array = npt.NDArray[np.float32]
Truth = npt.NDArray[Any]
Rng = np.random.Generator

# Columns of optical density (red, green, blue) for haematoxylin, eosin and DAB: Ruifrok & Johnston 2001.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
_UNHED = np.linalg.inv(HED).astype(np.float32)


def crop_pair(image: Array, truth: Truth, size: int, zoom: tuple[float, float], rng: Rng) -> tuple[Array, Truth]:
    """A random square or cube, zoomed, mirrored and turned by quarters in its last two axes.

    Args:
        image: (*space, C).
        truth: (*space), or (*space, R) of which the first counts; numbers, carried along without mixing them.
        size: side of the crop in pixels.
        zoom: range of magnification; more than 1 shows objects larger.
        rng: where the chance comes from.

    Returns:
        Crop (*size, C) and its truth (*size) or (*size, R). Three of four crops hold some foreground, if there
        is any; where the image is too small, it goes on as its mirror image.
    """
    dims = image.ndim - 1
    scale = float(np.exp(rng.uniform(*np.log(zoom))))
    side = max(8, round(size / scale))
    corner = _corner(truth if truth.ndim == dims else truth[..., 0], side, rng)
    image, truth = _window(image, corner, side), _window(truth, corner, side)
    if side != size:
        rows = (np.arange(size) + 0.5) * side / size - 0.5
        grid = np.meshgrid(*[rows] * dims, indexing="ij")
        planes = [ndimage.map_coordinates(image[..., c], grid, order=1, mode="nearest") for c in range(image.shape[-1])]
        image = np.stack(planes, -1)
        nearest = np.clip(np.floor(rows + 0.5).astype(int), 0, side - 1)
        truth = truth[np.ix_(*[nearest] * dims)]
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    axes = (dims - 2, dims - 1)
    image, truth = np.rot90(image, turns, axes), np.rot90(truth, turns, axes)
    over = (*((axes[1],) if mirrored else ()), *(axis for axis in range(dims - 2) if rng.integers(2)))
    image, truth = np.flip(image, over), np.flip(truth, over)
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(truth)


def _corner(truth: Truth, side: int, rng: Rng) -> tuple[int, ...]:
    room = [max(0, n - side) for n in truth.shape]
    inside = np.flatnonzero(truth) if rng.random() < 0.75 else np.empty(0, int)
    if len(inside) == 0:
        return tuple(int(rng.integers(free + 1)) for free in room)
    place = np.unravel_index(int(rng.choice(inside)), truth.shape)
    shift = rng.integers(0, side, truth.ndim)
    return tuple(int(np.clip(p - s, 0, free)) for p, s, free in zip(place, shift, room, strict=True))


def _window(array: Any, corner: tuple[int, ...], side: int) -> Any:
    part = array[tuple(slice(start, start + side) for start in corner)]
    missing = [(0, side - n) for n in part.shape[: len(corner)]] + [(0, 0)] * (part.ndim - len(corner))
    return np.pad(part, missing, mode="symmetric") if any(b for _, b in missing) else part


def flips(image: Array, truth: Truth, rng: Rng) -> Array:
    """Nothing but a little gain; mirroring and turning happen in :func:`crop_pair`."""
    return np.asarray(image * rng.uniform(0.9, 1.1), np.float32)


def fluorescence(image: Array, truth: Truth, rng: Rng) -> Array:
    """Light of a fluorescence crop (normalised, background near 0): gain, gamma, haze, blur, noise.

    Never inverted: bright on dark is what the model is for.
    """
    x: npt.NDArray[Any] = image * np.exp(rng.uniform(-0.7, 0.5))
    if rng.random() < 0.6:
        x = np.sign(x) * np.abs(x) ** np.exp(rng.uniform(-0.4, 0.4))
    if rng.random() < 0.3:
        x = x + rng.uniform(0, 0.15) * (1 + _field(x.shape[:-1], rng.uniform(15, 60), rng))[..., None]
    return _optics(x, rng, blur=1.5, noise=0.03)


def light(image: Array, truth: Truth, rng: Rng) -> Array:
    """Contrast, brightness, blur and noise of any normalised crop, a little of each; channels differ a bit."""
    channels = image.shape[-1]
    x = image * np.exp(rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, channels))
    x = x + x.std() * (rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, channels))
    return _optics(np.asarray(x, np.float32), rng, blur=1.2, noise=0.05)


def histology(image: Array, truth: Truth, rng: Rng) -> Array:
    """Stain of a tissue crop in 0…1: as it is, other amounts of each stain, or blue nuclei in brown DAB."""
    kind = rng.random()
    if kind < 0.5:
        image = _restain(image, truth, rng)
    elif kind < 0.75:
        image = _brown(image, truth, rng)
    x = image * rng.uniform(0.9, 1.1) + rng.uniform(-0.05, 0.05)
    return np.clip(_optics(x, rng, blur=1.2, noise=0.03), 0, 1)


def _optics(image: Array, rng: Rng, blur: float, noise: float) -> Array:
    x: npt.NDArray[Any] = image
    if rng.random() < 0.25:
        sigma = rng.uniform(0.3, blur)
        x = ndimage.gaussian_filter(x, (*[sigma] * (x.ndim - 1), 0))
    if rng.random() < 0.4:
        x = x + rng.normal(0, rng.uniform(0, noise), x.shape)
    return np.asarray(x, np.float32)


def _density(image: Array) -> Array:
    return np.asarray(-np.log(np.clip(image, 1 / 255, 1)), np.float32)


def _restain(image: Array, truth: Truth, rng: Rng) -> Array:
    """Scale and shift the amounts of haematoxylin, eosin and DAB; often put pink eosin around the nuclei."""
    amounts = _density(image) @ _UNHED
    amounts = amounts * rng.uniform(0.6, 1.4, 3) + rng.uniform(-0.08, 0.08, 3)
    if rng.random() < 0.5:
        soft = ndimage.gaussian_filter((truth > 0).astype(np.float32), rng.uniform(0.5, 1.2))
        pink = _patches(truth.shape, rng) * rng.uniform(0.2, 1.0) + rng.uniform(0, 0.3)
        amounts[..., 1] += pink * (1 - rng.uniform(0.4, 0.9) * soft)
    return np.asarray(np.clip(np.exp(-(amounts @ HED)), 0, 1), np.float32)


def _brown(image: Array, truth: Truth, rng: Rng) -> Array:
    """Paint the crop anew as DAB with haematoxylin: nuclei blue, brown in patches around them.

    What was dark outside of nuclei becomes brown, pale or stays blue by chance, and copies of nuclei from
    elsewhere in the crop are painted brown as decoys, so that colour and not darkness decides.
    """
    dark = _density(image).mean(-1)
    floor = np.percentile(dark, 25)
    blue = np.clip((dark - floor) / (np.percentile(dark, 98) - floor + 0.05), 0, 1.5)
    soft = ndimage.gaussian_filter((truth > 0).astype(np.float32), rng.uniform(0.5, 1.2))
    around = blue * (1 - soft)
    brown = _patches(dark.shape, rng) * (1 - rng.uniform(0.5, 1) * soft) + rng.uniform(0, 1) * around
    if rng.random() < 0.7:
        brown = brown + rng.uniform(0, 0.8) * _membranes(truth, rng) * (brown > 0.05)
    if rng.random() < 0.4:
        decoys = np.roll((blue * soft)[::-1], tuple(rng.integers(0, len(dark), 2)), axis=(0, 1))
        brown = brown + rng.uniform(0.5, 1.2) * decoys * (1 - soft)
    blue = (0.4 + 0.6 * blue) * soft + rng.uniform(0, 0.7) * around
    haematoxylin = _jitter((0.72, 0.58, 0.30), 0.10, rng) * rng.uniform(0.45, 1.4)
    dab = _jitter((0.32, 0.56, 0.80), 0.08, rng) * rng.uniform(0.6, 1.6)
    tint = rng.uniform(0, 0.15) * _jitter((0.5, 0.5, 0.5), 0.2, rng)
    density = blue[..., None] * haematoxylin + brown[..., None] * dab + tint
    return np.asarray(np.exp(-density), np.float32)


def _patches(shape: tuple[int, ...], rng: Rng) -> Array:
    """Smooth islands between 0 and about 1 with a fine grain on them."""
    islands = 1 / (1 + np.exp(-rng.uniform(3, 12) * (_field(shape, rng.uniform(8, 40), rng) + rng.uniform(-1.2, 1.2))))
    grain = 1 + rng.uniform(0, 0.5) * _field(shape, rng.uniform(0.7, 3), rng)
    return np.asarray(rng.uniform(0.2, 1.0) * islands * np.clip(grain, 0, 2), np.float32)


def _membranes(truth: Truth, rng: Rng) -> Array:
    """Bright lines midway between nuclei, as membranes are."""
    distance, nearest = ndimage.distance_transform_edt(truth == 0, return_indices=True)
    owner = truth[tuple(nearest)]
    lines = ndimage.maximum_filter(owner, 3) != ndimage.minimum_filter(owner, 3)
    soft = ndimage.gaussian_filter(lines.astype(np.float32), rng.uniform(0.8, 1.6))
    return np.asarray(np.clip(2 * soft, 0, 1) * np.clip(distance / 2, 0, 1), np.float32)


def _jitter(colour: tuple[float, float, float], amount: float, rng: Rng) -> Array:
    return np.asarray(np.clip(np.array(colour) + rng.uniform(-amount, amount, 3), 0.02, None), np.float32)


def _field(shape: tuple[int, ...], sigma: float, rng: Rng) -> Array:
    """A random field of mean 0 and deviation 1 with a grain of about ``sigma`` pixels, made small and enlarged."""
    step = max(1, int(sigma / 3))
    small = tuple(-(-n // step) + 2 for n in shape)
    field = ndimage.gaussian_filter(rng.normal(size=small), sigma / step, mode="wrap")
    field = (field - field.mean()) / (field.std() + 1e-9)
    if step > 1:
        field = ndimage.zoom(field, step, order=1)
    return np.asarray(field[tuple(slice(0, n) for n in shape)], np.float32)


AUGMENTATIONS: Mapping[str, Callable[[Array, Truth, Rng], Array]] = {
    "fluorescence": fluorescence,
    "histology": histology,
    "flips": flips,
    "light": light,
}


def find_augmentation(name: str) -> Callable[[Array, Truth, Rng], Array]:
    """The augmentation of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in AUGMENTATIONS:
        listing = f"Augmentations: {', '.join(AUGMENTATIONS)}."
        raise UnknownName.among("augmentation", name, AUGMENTATIONS, listing=listing)
    return AUGMENTATIONS[name]
