"""A stained tissue section: glands with an open middle, fibrous stroma between them, a few immune cells.

Colours come from physics: each stain has a colour of optical density, densities add, light falls off
exponentially (Beer and Lambert).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seglens.sample_data._draw import Array, Blob, chromatin, fibres, grain, random_blob, too_close

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.09, 0.95, 0.28], np.float32)
# Middle and radius of the three glands, in pixels.
_GLANDS = ((84.0, 92.0, 58.0), (196.0, 208.0, 66.0), (38.0, 236.0, 44.0))


def tissue_rgb(seed: int = 9, size: int = 288) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture (``YXC``) and the number of the nucleus of each pixel."""
    rng = np.random.default_rng(seed)
    shape = (size, size)
    texture, direction = fibres(rng, shape)
    rims = [_gland(rng, gland, shape) for gland in _GLANDS]
    eosin, white = _ground(rng, rims, texture)
    blobs = _epithelium(rng, shape, rims)
    blobs += _stroma(rng, shape, rims, direction, blobs)
    haematoxylin = 0.05 + 0.02 * grain(rng, shape, 3.0) + 0.10 * _band(rims)
    truth = np.zeros(shape, np.uint8)
    for number, (blob, stain) in enumerate(blobs, start=1):
        depth = blob.depth(shape)
        body = np.clip(depth / 1.6 + 0.5, 0, 1)
        rim = np.exp(-(((depth - 1.2) / 1.1) ** 2))
        haematoxylin = np.maximum(haematoxylin, stain * body * (chromatin(rng, shape) ** 1.6 + 0.35 * rim))
        eosin = eosin * (1 - 0.45 * body)
        truth[(depth > 0) & (truth == 0)] = number
    clear = 1 - 0.93 * white * (truth == 0)
    density = (haematoxylin * clear)[..., None] * HAEMATOXYLIN + (eosin * clear)[..., None] * EOSIN
    light = 0.955 * np.exp(-1.25 * ndimage.gaussian_filter(density, (0.8, 0.8, 0)))
    noisy = 255 * light + rng.normal(0, 2.2, light.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8), truth


def _gland(rng: np.random.Generator, gland: tuple[float, float, float], shape: tuple[int, int]) -> tuple[Array, float]:
    """Depth below the outer rim of a gland, and how thick its wall is."""
    y, x, radius = gland
    waves = tuple((rng.normal(0, 0.06), rng.uniform(0, 2 * np.pi)) for _ in range(3))
    outline = Blob((y, x), (radius, radius * 0.82), rng.uniform(0, np.pi), waves)
    return outline.depth(shape), 25.0 + rng.uniform(-2, 2)


def _ground(rng: np.random.Generator, rims: list[tuple[Array, float]], texture: Array) -> tuple[Array, Array]:
    """Eosin of stroma and cell bodies, and how empty each pixel is (lumen, cracks between fibres)."""
    shape = texture.shape
    stroma = 0.40 + 0.10 * texture + 0.05 * grain(rng, shape, 12)
    white = np.clip((-texture - 1.35) * 1.6, 0, 1) * np.clip(grain(rng, shape, 16) + 0.2, 0, 1)
    eosin = stroma
    for depth, wall in rims:
        cells = np.clip(depth / 1.5 + 0.5, 0, 1)
        body = 0.33 + 0.05 * grain(rng, shape, 5) + 0.05 * grain(rng, shape, 1.2)
        basement = 0.22 * np.exp(-((depth / 1.3) ** 2))
        apical = 0.16 * np.exp(-(((depth - wall) / 1.8) ** 2))
        eosin = eosin * (1 - cells) + (body + apical) * cells + basement
        lumen = np.clip((depth - wall - 1.5 * grain(rng, shape, 4)) / 2.0, 0, 1)
        debris = 0.75 + 0.25 * np.clip(1 - grain(rng, shape, 6), 0, 1)
        white = np.maximum(white * (1 - cells), lumen * debris)
    return np.asarray(np.clip(eosin, 0.05, None), np.float32), np.asarray(white, np.float32)


def _band(rims: list[tuple[Array, float]]) -> Array:
    """Cell bodies of the wall are a little blue."""
    return np.asarray(sum(((d > 0) & (d < wall)).astype(np.float32) for d, wall in rims), np.float32)


def _epithelium(
    rng: np.random.Generator, shape: tuple[int, int], rims: list[tuple[Array, float]]
) -> list[tuple[Blob, float]]:
    """A row of oval nuclei in the wall of each gland, standing upright on its rim."""
    found: list[Blob] = []
    for (depth, _), (cy, cx, radius) in zip(rims, _GLANDS, strict=True):
        for turn in np.arange(0, 2 * np.pi, 10.8 / radius):
            turn = turn + rng.normal(0, 0.02)
            along = np.arange(radius * 1.35, 0, -0.5)
            spots = np.stack([cy + along * np.sin(turn), cx + along * np.cos(turn)])
            at = ndimage.map_coordinates(depth, spots, order=1, mode="nearest")
            reached = np.flatnonzero(at > rng.uniform(7.5, 11.5))
            if not reached.size:
                continue
            centre = (float(spots[0][reached[0]]), float(spots[1][reached[0]]))
            blob = random_blob(rng, centre, (6.2, 7.6), flat=(0.58, 0.75), angle=turn + rng.normal(0, 0.15))
            if not too_close(blob, found, -1.8) and _inside(centre, shape):
                found.append(blob)
    return [(b, rng.uniform(0.62, 0.88)) for b in found]


def _stroma(
    rng: np.random.Generator,
    shape: tuple[int, int],
    rims: list[tuple[Array, float]],
    direction: Array,
    taken: list[tuple[Blob, float]],
) -> list[tuple[Blob, float]]:
    """Between the glands: long nuclei along the fibres, and round dark ones of immune cells."""
    outside = np.min([-depth for depth, _ in rims], axis=0)
    blobs = [b for b, _ in taken]
    found: list[tuple[Blob, float]] = []
    for _ in range(1500):
        y, x = rng.uniform(0, shape[0], 2)
        if len(found) >= 62 or outside[int(y), int(x)] < 6:
            continue
        if rng.random() < 0.55:
            angle = float(direction[int(y), int(x)]) + rng.normal(0, 0.12)
            blob, stain = random_blob(rng, (y, x), (7, 9.5), flat=(0.26, 0.4), angle=angle), rng.uniform(0.6, 0.85)
        else:
            blob, stain = random_blob(rng, (y, x), (4.2, 5.2), flat=(0.88, 1.0)), rng.uniform(0.9, 1.1)
        if not too_close(blob, blobs, 1.0):
            blobs.append(blob)
            found.append((blob, stain))
    return found


def _inside(centre: tuple[float, float], shape: tuple[int, int]) -> bool:
    return all(-4 < c < n + 4 for c, n in zip(centre, shape, strict=True))
