"""The scenes that are drawn with fluorescent nuclei: flat, deep, and over time. Each returns image and truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seglens.sample_data._draw import Array, Blob, camera, chromatin, grain, random_blob, spread

Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def nuclei_2d(seed: int = 3, shape: tuple[int, int] = (256, 256)) -> Drawn:
    """Nuclei as a fluorescence microscope sees them; three pairs touch and the last one is out of focus."""
    rng = np.random.default_rng(seed)
    blobs = spread(rng, shape, 21, (11.5, 16.0), 2.0)
    for mother in blobs[2:5]:
        blobs.append(_neighbour(rng, mother, blobs))
    light = 0.035 + 0.012 * grain(rng, shape, 40)
    truth = np.zeros(shape, np.uint8)
    for number, blob in enumerate(blobs, start=1):
        light += _nucleus(rng, blob, shape, brightness=rng.uniform(0.35, 0.8))
        truth[(blob.depth(shape) > 0) & (truth == 0)] = number
    glow = sum(_nucleus(rng, b, shape, brightness=0.5) for b in blobs)
    light += 0.10 * ndimage.gaussian_filter(np.asarray(glow, np.float32), 14)
    far = random_blob(rng, _empty_spot(truth), (15, 17))
    light += ndimage.gaussian_filter(_nucleus(rng, far, shape, brightness=0.42), 5.5)
    truth[(far.depth(shape) > 0) & (truth == 0)] = len(blobs) + 1
    return camera(rng, ndimage.gaussian_filter(light, 0.9), photons=160), truth


def nuclei_zstack(seed: int = 5, shape: tuple[int, int, int] = (16, 112, 128), step: float = 2.5) -> Drawn:
    """Nuclei in depth; a slice is ``step`` times as thick as a pixel is wide."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]].astype(np.float32)
    light = np.full(shape, 0.03, np.float32)
    truth = np.zeros(shape, np.uint8)
    centres: list[NDArray[np.float64]] = []
    while len(centres) < 19:
        centre = rng.uniform((1.5, 4, 4), (shape[0] - 2.5, shape[1] - 4, shape[2] - 4))
        scaled = centre * (step, 1, 1)
        if any(np.linalg.norm(scaled - other) < 20.5 for other in centres):
            continue
        centres.append(scaled)
        turn, (a, b, c) = rng.uniform(0, np.pi), rng.uniform((10, 8, 7), (13.5, 10.5, 9))
        u = (x - centre[2]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
        v = (y - centre[1]) * np.cos(turn) - (x - centre[2]) * np.sin(turn)
        inside = (u / a) ** 2 + (v / b) ** 2 + (step * (z - centre[0]) / c) ** 2
        inside += 0.10 * grain(rng, shape, (2.5, 6, 6))
        body = rng.uniform(0.4, 0.85) * np.clip((1.12 - inside) * 4, 0, 1) * chromatin(rng, shape)
        np.maximum(light, body, out=light, casting="unsafe")
        truth[(inside < 1) & (truth == 0)] = len(centres)
    # The point spread: sharp in the plane, long along the axis; deeper slices get less light.
    seen = 0.72 * ndimage.gaussian_filter(light, (0.9, 1.0, 1.0)) + 0.28 * ndimage.gaussian_filter(light, (2.6, 5, 5))
    fading = np.linspace(1, 0.72, shape[0], dtype=np.float32)[:, None, None]
    return camera(rng, seen * fading, photons=110), truth


def time_lapse(seed: int = 11, frames: int = 12, shape: tuple[int, int] = (128, 128)) -> Drawn:
    """Moving nuclei; one rounds up, brightens and divides at frame 6. The truth numbers tracks."""
    rng = np.random.default_rng(seed)
    start = spread(rng, shape, 8, (9.5, 12.0), 9.0)
    drift = rng.normal(0, 1.3, (len(start), 2))
    textures = [chromatin(rng, shape) for _ in range(len(start) + 2)]
    images, truths = [], []
    for t in range(frames):
        light = 0.04 + 0.006 * grain(rng, shape, 30)
        truth = np.zeros(shape, np.uint8)
        for number, blob, bright in _at(t, start, drift):
            moved = ndimage.shift(textures[number - 1], [c - s / 2 for c, s in zip(blob.centre, shape, strict=True)],
                                  order=1, mode="wrap")  # fmt: skip
            depth = blob.depth(shape)
            light += bright * np.clip(depth / 2.2 + 0.5, 0, 1) * moved
            truth[(depth > 0) & (truth == 0)] = number
        images.append(camera(rng, ndimage.gaussian_filter(light, 1.1), photons=120))
        truths.append(truth)
    return np.stack(images), np.stack(truths)


def _at(t: int, start: list[Blob], drift: NDArray[np.float64]) -> list[tuple[int, Blob, float]]:
    """Number, outline and brightness of every nucleus at a frame; the most central one divides."""
    middle = [np.hypot(b.centre[0] - 64, b.centre[1] - 64) for b in start]
    mother = int(np.argmin(middle))
    found = []
    for i, (blob, (dy, dx)) in enumerate(zip(start, drift, strict=True)):
        # A smooth wobble keeps paths from being straight lines.
        y = blob.centre[0] + dy * t + 1.6 * np.sin(0.7 * t + i)
        x = blob.centre[1] + dx * t + 1.6 * np.cos(0.6 * t + 2 * i)
        if i != mother:
            found.append((i + 1, Blob((y, x), blob.radii, blob.angle + 0.04 * t * (-1) ** i, blob.waves), 0.5))
        elif t < 6:
            round_up = max(0.0, (t - 3) / 3)
            radii = (blob.radii[0] * (1 - 0.22 * round_up), blob.radii[1] * (1 - 0.1 * round_up))
            found.append((i + 1, Blob((y, x), radii, blob.angle, blob.waves), 0.5 + 0.28 * round_up))
        else:
            found += _daughters(t - 6, (y, x), blob, len(start))
    return found


def _daughters(age: int, centre: tuple[float, float], mother: Blob, tracks: int) -> list[tuple[int, Blob, float]]:
    apart = 5.5 + 2.6 * age**0.8
    turn = mother.angle + np.pi / 2
    grown = min(1.0, 0.55 + 0.08 * age)
    pair = []
    for number, side in ((tracks + 1, 1), (tracks + 2, -1)):
        spot = (centre[0] + side * apart * np.sin(turn), centre[1] + side * apart * np.cos(turn))
        radii = (mother.radii[0] * grown, mother.radii[1] * grown * 0.75)
        pair.append((number, Blob(spot, radii, mother.angle, mother.waves), max(0.5, 0.75 - 0.06 * age)))
    return pair


def _nucleus(rng: np.random.Generator, blob: Blob, shape: tuple[int, int], *, brightness: float) -> Array:
    """One nucleus: a soft rim, clumped chromatin, two or three dark nucleoli."""
    depth = blob.depth(shape)
    body = np.clip(depth / 2.5 + 0.4, 0, 1) * chromatin(rng, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(2, 4)):
        away, turn = 0.5 * blob.radii[1] * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        spot = (blob.centre[0] + away * np.sin(turn), blob.centre[1] + away * np.cos(turn))
        width = rng.uniform(1.4, 2.4)
        body = body * (1 - 0.45 * np.exp(-((y - spot[0]) ** 2 + (x - spot[1]) ** 2) / (2 * width**2)))
    return np.asarray(brightness * body, np.float32)


def _neighbour(rng: np.random.Generator, mother: Blob, others: list[Blob]) -> Blob:
    """A blob that touches another one, where there is most room."""
    best, room = mother, -1.0
    for turn in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        distance = sum(mother.radii) / 2 + 11.0
        centre = (mother.centre[0] + distance * np.sin(turn), mother.centre[1] + distance * np.cos(turn))
        free = min(np.hypot(centre[0] - o.centre[0], centre[1] - o.centre[1]) for o in others if o is not mother)
        if free > room:
            best, room = random_blob(rng, centre, (11, 13)), float(free)
    return best


def _empty_spot(truth: NDArray[np.uint8]) -> tuple[float, float]:
    """The place furthest from everything that is drawn, off the margin."""
    margin = 26
    room = ndimage.distance_transform_edt(truth == 0)[margin:-margin, margin:-margin]
    y, x = np.unravel_index(int(np.argmax(room)), room.shape)
    return float(y) + margin, float(x) + margin
