"""Tiny generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.io import imsave


def blobs(seed: int, size: int = 64) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Bright discs on dark with noise, and their instance numbers; both (size, size)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    mask: npt.NDArray[Any] = np.zeros((size, size), np.uint16)
    for number in range(1, 6):
        cy, cx, radius = *rng.uniform(8, size - 8, 2), rng.uniform(5, 9)
        mask[np.hypot(y - cy, x - cx) <= radius] = number
    image = 20 + 150 * (mask > 0) + rng.normal(0, 8, mask.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_folder(folder: Path, count: int) -> Path:
    """A data folder with ``count`` pairs of :func:`blobs`; returns it."""
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    for seed in range(count):
        image, mask = blobs(seed)
        imsave(data / "images" / f"cell{seed:02}.png", image, check_contrast=False)
        imsave(data / "masks" / f"cell{seed:02}.tif", mask, check_contrast=False)
    return data
