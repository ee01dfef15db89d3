"""Draws every sample file again, byte for byte: ``python -m seglens.sample_data.make [FOLDER]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.sample_data._scenes import nuclei_2d, nuclei_zstack, time_lapse
from seglens.sample_data._tissue import tissue_rgb
from seglens.sample_data.shortcut import shortcut_image

HERE = Path(__file__).parent
SHORTCUT_SEED = 23

Drawing = tuple[str, NDArray[Any], str, Mapping[str, float]]


def drawings() -> Iterator[Drawing]:
    """Name of the file, pixels, axes, and size of a pixel in micrometres (of a frame in seconds)."""
    flat = {"Y": 0.5, "X": 0.5}
    for part, pixels in zip(("", "-truth"), nuclei_2d(), strict=True):
        yield f"nuclei-2d{part}", pixels, "YX", flat
    for part, pixels in zip(("", "-truth"), tissue_rgb(), strict=True):
        yield f"tissue-rgb{part}", pixels, "YXC" if pixels.ndim == 3 else "YX", flat
    for part, pixels in zip(("", "-truth"), nuclei_zstack(), strict=True):
        yield f"nuclei-zstack{part}", pixels, "ZYX", {"Z": 1.0, "Y": 0.4, "X": 0.4}
    for part, pixels in zip(("", "-truth"), time_lapse(), strict=True):
        yield f"time-lapse{part}", pixels, "TYX", {"T": 600.0, **flat}
    yield from _shortcut(flat)


def write(folder: Path) -> list[Path]:
    """Draw everything into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(folder / f"{name}.tif", pixels, axes, size) for name, pixels, axes, size in drawings()]


def main(arguments: list[str]) -> None:
    """Draw into the folder that was given, else beside this file."""
    write(Path(arguments[0]) if arguments else HERE)


def _shortcut(size: Mapping[str, float]) -> Iterator[Drawing]:
    image, classes, _, marker = shortcut_image(SHORTCUT_SEED)
    yield "shortcut", image, "YX", size
    yield "shortcut-truth", classes, "YX", size
    yield "shortcut-marker", marker.astype(np.uint8), "YX", size
    moved, *_ = shortcut_image(SHORTCUT_SEED, markers="healthy")
    yield "shortcut-moved", moved, "YX", size


def _save(path: Path, pixels: NDArray[Any], axes: str, size: Mapping[str, float]) -> Path:
    import tifffile

    metadata: dict[str, Any] = {"axes": axes.replace("C", "S"), "unit": "um"}
    if "Z" in size:
        metadata["spacing"] = size["Z"]
    if "T" in size:
        metadata["finterval"] = size["T"]
    # ImageJ's kind of TIFF keeps axes and sizes. Uncompressed: the bytes then depend on no zlib.
    resolution = (1 / size["X"], 1 / size["Y"])
    tifffile.imwrite(path, pixels, imagej=True, resolution=resolution, metadata=metadata)
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
