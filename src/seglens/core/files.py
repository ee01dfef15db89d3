"""Images and masks from files: ``open_image("cells.tif")``, ``open_image("sample:nuclei-2d")``."""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import ImageMismatch, NoSuchRegion, SegLensError
from seglens.core.image import Image, guess_axes
from seglens.core.readers import Pixels

# Endings and the module that reads them, by name: a format's library is imported with its first file.
READERS = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".npy": "array",
    ".zarr": "zarrs",
}
KINDS = "TIFF, PNG, JPEG, OME-Zarr, NIfTI or .npy"
SAMPLE = "sample:"
# Core knows the samples by name only; they stand one floor up.
_SAMPLES = "seglens.sample_data"
# What the libraries raise on files that are broken in one way or another.
_BROKEN = (OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, RuntimeError, struct.error, zlib.error)


def open_image(source: str | Path, *, axes: str | None = None) -> Image:
    """Open an image file, a zarr folder or a sample; big ones are read piece by piece when needed.

    Args:
        source: a path, or ``sample:NAME``.
        axes: one letter of ``TCZYX`` per axis, where the file does not tell or tells wrongly.

    Raises:
        ImageMismatch: missing, broken or of no known kind; or its axes cannot be guessed.
    """
    if str(source).startswith(SAMPLE):
        image: Image = importlib.import_module(_SAMPLES).open_sample(str(source)[len(SAMPLE) :])
        return image if axes is None else replace(image, axes=axes.upper(), index=())
    path = Path(source).expanduser()
    return _as_image(_pixels(path, _reader(path)), path, axes)


def read_labels(path: str | Path, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """An annotation: whole numbers from 0 (nothing), one per thing.

    Args:
        path: any image file of one channel.
        shape: the space of the image that it must fit; ``None`` takes it as it is.

    Raises:
        ImageMismatch: not readable, of another shape, or not of whole numbers.
    """
    image = open_image(path)
    pixels = np.squeeze(image.read(image.kept))
    if not np.issubdtype(pixels.dtype, np.number) or (pixels != np.round(pixels)).any() or (pixels < 0).any():
        raise ImageMismatch(f"{image.name} holds no labels.", fix="Save labels as whole numbers from 0, one per thing.")
    if shape is not None and pixels.shape != shape:
        raise ImageMismatch(
            f"The labels {image.name} have shape {pixels.shape}, the image {shape}.", fix="Crop them to the image."
        )
    return pixels.astype(np.int64)


def read_mask(path: str | Path, shape: tuple[int, ...] | None = None) -> NDArray[np.int8]:
    """A mask to explain: +1 where a person painted *for*, -1 for *against* (negative numbers), 0 elsewhere.

    Args:
        path: any image file; colours count as painted where they are not black.
        shape: the space of the image that it must fit; ``None`` takes the mask as it is.

    Raises:
        ImageMismatch: not readable, or of another shape.
        NoSuchRegion: nothing is painted.
    """
    path = Path(path).expanduser()
    reader = _reader(path)
    pixels = _pixels(path, _find(reader, "read_indices") if reader == "picture" else reader)
    data = np.asarray(pixels.data)
    if pixels.axes is not None and "C" in pixels.axes and (shape is None or data.ndim > len(shape)):
        channels = np.moveaxis(data, pixels.axes.index("C"), 0)
        data = np.any(channels[:3] != 0, axis=0)
    if shape is not None and data.ndim > len(shape) and data.size == np.prod(shape):
        data = data.squeeze()
    if shape is not None and data.shape != tuple(shape):
        raise ImageMismatch(
            f"The mask {path.name} has {_by(data.shape)} pixels, the image has {_by(tuple(shape))}.",
            fix="Paint or export the mask on this very image, at the same size.",
        )
    if not data.any():
        raise NoSuchRegion(
            f"The mask {path.name} is empty: no pixel is painted.",
            fix="Paint at least one pixel with a value other than 0.",
        )
    return np.sign(data.astype(np.float32)).astype(np.int8)


def image_files(folder: str | Path) -> list[Path]:
    """The images that lie in a folder, sorted by name.

    Raises:
        ImageMismatch: there are none.
    """
    found = sorted(p for p in Path(folder).iterdir() if _ending(p) in READERS)
    if not found:
        raise ImageMismatch(f"The folder {folder} holds no images.", fix=f"Give a folder or a file with {KINDS}.")
    return found


def _reader(path: Path) -> str:
    if not path.exists():
        raise ImageMismatch(f"There is no file {path}.", fix=_nearest(path))
    if path.is_dir():
        return _folder_reader(path)
    if path.stat().st_size == 0:
        raise ImageMismatch(f"{path.name} is empty (0 bytes).", fix="Copy or export the file again.")
    if _ending(path) not in READERS:
        raise ImageMismatch(
            f"{path.name} is of a kind that SegLens does not read ({path.suffix or 'no ending'}).",
            fix=f"Convert it to {KINDS}.",
        )
    return READERS[_ending(path)]


def _folder_reader(path: Path) -> str:
    from seglens.core.readers.zarrs import is_zarr

    if is_zarr(path):
        return "zarrs"
    first = image_files(path)[0]
    raise ImageMismatch(f"{path} is a folder, not an image.", fix=f"Give one of its images, for example {first}.")


def _pixels(path: Path, reader: str | Callable[[Path], Pixels]) -> Pixels:
    read = _find(reader, "read") if isinstance(reader, str) else reader
    try:
        return read(path)
    except SegLensError:
        raise
    except _BROKEN as error:
        raise ImageMismatch(
            f"{path.name} cannot be read: {_first_line(error)}.",
            fix="Check that the file is complete (does another program open it?), or export it again as TIFF.",
        ) from error


def _find(module: str, function: str) -> Callable[[Path], Pixels]:
    found: Callable[[Path], Pixels] = getattr(importlib.import_module(f"seglens.core.readers.{module}"), function)
    return found


def _as_image(pixels: Pixels, path: Path, axes: str | None) -> Image:
    shape = tuple(pixels.data.shape)
    chosen = axes.upper() if axes else pixels.axes or guess_axes(shape)
    details: dict[str, Any] = {"unit": pixels.unit, "name": _stem(path), "source": str(path)}
    size = {a: s for a, s in pixels.pixel_size.items() if a in chosen}
    image = Image(pixels.data, chosen, pixel_size=size, **details)
    return image.with_channels(pixels.channels) if pixels.channels and "C" in chosen else image


def _ending(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _stem(path: Path) -> str:
    ending = _ending(path)
    name = path.name[: -len(ending)] if ending else path.name
    return name.removesuffix(".ome") or path.name


def _nearest(path: Path) -> str:
    import difflib

    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Check the path; `sample:nuclei-2d` is always there."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
