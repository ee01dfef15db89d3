"""How files become pixels: a module per format, each with ``read(path) -> Pixels``. Imported when needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_UNITS = {
    "nanometer": ("nm", "nanometre", "nanometers", "nanometres"),
    "micrometer": ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometre", "micrometers", "micrometres"),
    "millimeter": ("mm", "millimetre", "millimeters", "millimetres"),
    "centimeter": ("cm", "centimetre", "centimeters", "centimetres"),
    "meter": ("m", "metre", "meters", "metres"),
}


@dataclass(frozen=True)
class Pixels:
    """What a reader found in a file.

    Args:
        data: numpy or zarr array.
        axes: a letter of ``TCZYX`` per axis; ``None`` if the file does not tell.
        pixel_size: size of a pixel per space axis, in ``unit``; empty if the file does not tell.
        unit: unit of the pixel size.
        channels: the channels that are colour, where one is transparency; ``None`` for all.
    """

    data: Any
    axes: str | None = None
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    unit: str = "pixel"
    channels: tuple[int, ...] | None = None


def unit_name(text: str | None) -> str:
    """One name per unit: ``µm``, ``um`` and ``micron`` are ``micrometer``; unknown ones stay as they are."""
    plain = (text or "").strip()
    for name, others in _UNITS.items():
        if plain.lower() == name or plain.lower() in others:
            return name
    return plain or "pixel"
