"""TIFF: OME-TIFF and ImageJ with axes and pixel size, plain pages, pyramids (level 0); big ones stay on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seglens.core.readers import Pixels, unit_name

LAZY = 64 * 2**20
_CENTIMETRE = 3


def read(path: Path) -> Pixels:
    """The first series of a TIFF; read when small, else opened as a zarr array."""
    import tifffile

    tif = tifffile.TiffFile(path)
    series = tif.series[0]
    size, unit = _pixel_size(tif)
    channels = _colour(tif, series)
    if series.nbytes <= LAZY:
        with tif:
            data: Any = series.asarray()
        shape, axes = data.shape, series.axes
    else:
        # The store keeps the file open for as long as the image lives.
        data, shape, axes = _on_disk(series), tuple(series.shape), series.axes
    keep = [n > 1 or a in "TCZYX" for n, a in zip(shape, axes, strict=True)]
    if not all(keep):
        data = data[tuple(slice(None) if k else 0 for k in keep)]
        axes = "".join(a for a, k in zip(axes, keep, strict=True) if k)
    return Pixels(data, known_axes(axes), size, unit, channels)


def known_axes(axes: str) -> str | None:
    """TIFF's letters as ours: samples are channels, unknown sequences become Z and T; ``None`` if that fails.

    >>> known_axes("QYXS")
    'ZYXC'
    """
    if "S" in axes:
        if "C" in axes:
            return None
        axes = axes.replace("S", "C")
    free = [a for a in "ZT" if a not in axes]
    unknown = [a for a in axes if a not in "TCZYX"]
    if len(unknown) > len(free):
        return None
    for letter, ours in zip(reversed(unknown), free, strict=False):
        axes = axes.replace(letter, ours)
    return axes if len(set(axes)) == len(axes) else None


def _on_disk(series: Any) -> Any:
    import dask.array as da
    import zarr

    data = zarr.open(series.aszarr(level=0), mode="r")
    return data if all(n > 1 for n in series.shape) else da.from_zarr(data)


def _colour(tif: Any, series: Any) -> tuple[int, ...] | None:
    page = tif.pages[0]
    has_alpha = bool(page.extrasamples) and page.photometric.name == "RGB"
    return (0, 1, 2) if has_alpha and "S" in series.axes else None


def _pixel_size(tif: Any) -> tuple[dict[str, float], str]:
    if tif.is_ome:
        return _from_ome(tif.ome_metadata)
    if tif.is_imagej:
        data = tif.imagej_metadata or {}
        unit = unit_name(str(data.get("unit", "")))
        if unit in ("pixel", "pixels"):
            return {}, "pixel"
        size = _from_resolution(tif.pages[0], 1.0)
        if "spacing" in data:
            size["Z"] = float(data["spacing"])
        return size, unit
    unit_tag = tif.pages[0].tags.get("ResolutionUnit")
    if unit_tag is not None and int(unit_tag.value) == _CENTIMETRE:
        return _from_resolution(tif.pages[0], 1e4), "micrometer"
    # Inches are what paint programs write by default (72 per inch): no size of anything.
    return {}, "pixel"


def _from_ome(xml: str) -> tuple[dict[str, float], str]:
    import tifffile

    found = tifffile.xml2dict(xml).get("OME", {}).get("Image", {})
    first = found[0] if isinstance(found, list | tuple) else found
    pixels = first.get("Pixels", {})
    size = {a: float(pixels[f"PhysicalSize{a}"]) for a in "ZYX" if f"PhysicalSize{a}" in pixels}
    units = {a: unit_name(pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in size}
    # Axes in different units cannot be told apart by one word: pixels are then the honest answer.
    return (size, units[next(iter(size))]) if len(set(units.values())) == 1 else ({}, "pixel")


def _from_resolution(page: Any, scale: float) -> dict[str, float]:
    size = {}
    for axis in "YX":
        tag = page.tags.get(f"{axis}Resolution")
        if tag is not None and tag.value[0] > 0:
            size[axis] = scale * tag.value[1] / tag.value[0]
    return size
