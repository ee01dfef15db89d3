"""OME-Zarr (level 0, axes and scale kept) and plain zarr arrays; nothing is read before it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seglens.core.errors import ImageMismatch
from seglens.core.readers import Pixels, unit_name


def read(path: Path) -> Pixels:
    """A zarr folder: an image with ``multiscales``, or one array."""
    import zarr

    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return Pixels(node, _array_axes(node))
    attributes = _ome(node.attrs)
    if "multiscales" not in attributes and "0" in node and isinstance(node["0"], zarr.Group):
        node = node["0"]  # how converters lay out a file with several images
        attributes = _ome(node.attrs)
    if "multiscales" in attributes:
        return _multiscale(node, attributes["multiscales"][0])
    raise ImageMismatch(
        f"{path.name} is a zarr group without an image description (multiscales).",
        fix=_inside(path, node),
    )


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr array or group, whatever its name ends in."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _ome(attributes: Any) -> Mapping[str, Any]:
    found = dict(attributes)
    inner = found.get("ome")
    return inner if isinstance(inner, Mapping) else found


def _multiscale(group: Any, scales: Mapping[str, Any]) -> Pixels:
    level = scales["datasets"][0]
    data = group[level["path"]]
    described = scales.get("axes") or list("tczyx"[-data.ndim :])
    names = [(a["name"] if isinstance(a, Mapping) else a).upper() for a in described]
    scale = [1.0] * len(names)
    for step in (*level.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())):
        if step.get("type") == "scale":
            scale = [a * float(b) for a, b in zip(scale, step["scale"], strict=True)]
    units = {unit_name(a.get("unit")) for a in described if isinstance(a, Mapping) and a["name"].upper() in "ZYX"}
    size = {n: s for n, s in zip(names, scale, strict=True) if n in "ZYX"}
    unit = units.pop() if len(units) == 1 else "pixel"
    return Pixels(data, "".join(names), size, unit)


def _array_axes(array: Any) -> str | None:
    told = array.attrs.get("axes")
    names = told if isinstance(told, str) else getattr(array.metadata, "dimension_names", None)
    if not names or any(n is None or len(n) != 1 for n in names):
        return None
    axes = "".join(names).upper()
    return axes if set(axes) <= set("TCZYX") else None


def _inside(path: Path, group: Any) -> str:
    inner = sorted(group.keys())
    if not inner:
        return "Choose a folder that holds an image."
    return f"Give the image inside it, for example {path.name}/{inner[0]}."
