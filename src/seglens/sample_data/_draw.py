"""What the scenes are drawn with: blobs, grain, light and noise. Plain numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Blob:
    """An ellipse with a wavy rim: the outline of a nucleus.

    Args:
        centre: y and x in pixels.
        radii: long and short half axis in pixels.
        angle: of the long axis, in radians.
        waves: amplitude and phase of the 2nd, 3rd, 4th harmonic of the rim.
    """

    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    waves: tuple[tuple[float, float], ...] = ()

    def depth(self, shape: tuple[int, int]) -> Array:
        """How deep each pixel lies inside the rim, in pixels; negative outside."""
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        y, x = y - self.centre[0], x - self.centre[1]
        along = np.arctan2(y, x) - self.angle
        a, b = self.radii
        rim = a * b / np.hypot(b * np.cos(along), a * np.sin(along))
        for order, (amplitude, phase) in enumerate(self.waves, start=2):
            rim = rim * (1 + amplitude * np.cos(order * along + phase))
        return np.asarray(rim - np.hypot(y, x), np.float32)


def random_blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    size: tuple[float, float],
    *,
    flat: tuple[float, float] = (0.7, 0.95),
    angle: float | None = None,
    wavy: float = 0.05,
) -> Blob:
    """A blob of random size, flatness and rim."""
    radius = rng.uniform(*size)
    turn = rng.uniform(0, np.pi) if angle is None else angle
    waves = tuple((rng.normal(0, wavy / order), rng.uniform(0, 2 * np.pi)) for order in (2, 3, 4))
    return Blob(centre, (radius, radius * rng.uniform(*flat)), turn, waves)


def grain(rng: np.random.Generator, shape: tuple[int, ...], sigma: Any) -> Array:
    """A random field of mean 0 and deviation 1 whose grain is about ``sigma`` pixels."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / (field.std() + 1e-9), np.float32)


def fibres(rng: np.random.Generator, shape: tuple[int, int], *, bend: float = 60.0) -> tuple[Array, Array]:
    """A fibrous texture (mean 0, deviation 1) and the direction of its fibres in radians."""
    direction = 0.5 * grain(rng, shape, bend) + rng.uniform(0, np.pi)
    noise = grain(rng, shape, 0.8)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    total = np.zeros(shape, np.float32)
    # Average the noise along the direction: each pixel looks up and down its own fibre.
    for step in np.linspace(-9, 9, 19):
        spot = [y + step * np.sin(direction), x + step * np.cos(direction)]
        total += ndimage.map_coordinates(noise, spot, order=1, mode="wrap")
    return np.asarray((total - total.mean()) / total.std(), np.float32), direction


def chromatin(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """The texture of a nucleus: clumps of two sizes, around 1."""
    return np.asarray(1 + 0.16 * grain(rng, shape, 2.2) + 0.07 * grain(rng, shape, 0.9), np.float32)


def camera(rng: np.random.Generator, light: Array, *, photons: float, offset: float = 8.0) -> NDArray[np.uint8]:
    """Light of 0 to 1 as a camera counts it: shot noise, read noise, 8 bits."""
    counts = rng.poisson(np.maximum(light, 0) * photons) / photons
    values = offset + 235 * counts + rng.normal(0, 1.2, light.shape)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def too_close(blob: Blob, others: list[Blob], gap: float) -> bool:
    """Whether a blob comes nearer than ``gap`` to another, by their mean radii."""
    return any(
        np.hypot(blob.centre[0] - o.centre[0], blob.centre[1] - o.centre[1])
        < (sum(blob.radii) + sum(o.radii)) / 2 + gap
        for o in others
    )


def spread(
    rng: np.random.Generator, shape: tuple[int, int], count: int, size: tuple[float, float], gap: float, **kind: Any
) -> list[Blob]:
    """Blobs at random places, at least ``gap`` pixels apart."""
    blobs: list[Blob] = []
    for _ in range(200 * count):
        centre = (rng.uniform(-2, shape[0] + 2), rng.uniform(-2, shape[1] + 2))
        blob = random_blob(rng, centre, size, **kind)
        if len(blobs) < count and not too_close(blob, blobs, gap):
            blobs.append(blob)
    return blobs
