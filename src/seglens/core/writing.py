"""One array as an OME-TIFF, or as an OME-Zarr when it is very big; written piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BIG = 2**30
_TYPES = {"b": np.uint8, "e": np.float32}
_CHUNK = 1024
_SHORT = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}


def write_image(
    path: Path, data: Any, axes: str, pixel_size: Mapping[str, float], unit: str, *, name: str = "", big: int = BIG
) -> Path:
    """Write an array with its axes and pixel size.

    Args:
        path: ends in ``.tif``; the zarr folder of a big array has the same stem.
        data: numpy, zarr or dask array.
        axes: one letter of ``TCZYX`` per axis.
        pixel_size: per space axis; missing ones are 1.
        unit: unit of the pixel size.
        name: kept in the file.
        big: from this many bytes on it becomes an OME-Zarr.

    Returns:
        The file or folder that was written.
    """
    if np.prod(data.shape) * np.dtype(data.dtype).itemsize >= big:
        folder = path.with_name(path.name.removesuffix(".tif").removesuffix(".ome") + ".ome.zarr")
        _write_zarr(folder, data, axes, pixel_size, unit, name)
        return folder
    _write_tiff(path, np.asarray(data), axes, pixel_size, unit, name)
    return path


def _write_tiff(
    path: Path, data: NDArray[Any], axes: str, pixel_size: Mapping[str, float], unit: str, name: str
) -> None:
    import tifffile

    colour = axes.endswith("C") and data.dtype.itemsize <= 2 and data.shape[-1] in (3, 4)
    if not colour:
        order = "".join(a for a in "TCZYX" if a in axes)
        data, axes = data.transpose([axes.index(a) for a in order]), order
    metadata: dict[str, Any] = {"axes": axes.replace("C", "S") if colour else axes, "Name": name}
    if unit != "pixel":
        for axis in (a for a in "ZYX" if a in axes):
            metadata[f"PhysicalSize{axis}"] = float(pixel_size.get(axis, 1.0))
            metadata[f"PhysicalSize{axis}Unit"] = _SHORT.get(unit, unit)
    photometric = "rgb" if colour else "minisblack"
    tifffile.imwrite(path, _storable(data), ome=True, photometric=photometric, metadata=metadata, compression="zlib")


def _storable(data: NDArray[Any]) -> NDArray[Any]:
    """OME knows no booleans, half floats or 64-bit integers."""
    if data.dtype.kind in "iu" and data.dtype.itemsize == 8:
        return data.astype(np.int32)
    kind = "e" if data.dtype == np.float16 else data.dtype.kind
    return data.astype(_TYPES[kind]) if kind in _TYPES else data


def _write_zarr(folder: Path, data: Any, axes: str, pixel_size: Mapping[str, float], unit: str, name: str) -> None:
    import zarr

    group = zarr.create_group(str(folder), overwrite=True)
    chunks = tuple(min(n, _CHUNK if a in "YX" else 1) for a, n in zip(axes, data.shape, strict=True))
    dtype = _TYPES.get(np.dtype(data.dtype).kind, data.dtype)
    array = group.create_array("0", shape=data.shape, dtype=dtype, chunks=chunks)
    for box in _boxes(data.shape, chunks):
        array[box] = np.asarray(data[box])
    scale = [float(pixel_size.get(a, 1.0)) for a in axes]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": [_axis(a, unit) for a in axes], "datasets": [level]}],
    }


def _axis(axis: str, unit: str) -> dict[str, str]:
    if axis in "TC":
        return {"name": axis.lower(), "type": {"T": "time", "C": "channel"}[axis]}
    return {"name": axis.lower(), "type": "space"} | ({} if unit == "pixel" else {"unit": unit})


def _boxes(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    starts = [range(0, n, c) for n, c in zip(shape, chunks, strict=True)]
    for corner in product(*starts):
        yield tuple(slice(s, s + c) for s, c in zip(corner, chunks, strict=True))
