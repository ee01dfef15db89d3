"""Colour maps that are clear where there is nothing to see, so that the image shows through."""

from __future__ import annotations

from functools import cache

import numpy as np
from napari.utils.colormaps import Colormap, ensure_colormap

from seglens.app import maps

TARGET: dict[int | None, str] = {1: "#00e5ff", 2: "#ff9100"}
GREEN, AMBER, RED, GREY = "#66bb6a", "#ffb300", "#ef5350", "#90a4ae"

# Colours of text by what it says; on either ground they differ from it by 4.5 to 1 or more.
TONES = {
    "dark": {"muted": "#9fb0ba", "good": GREEN, "warning": AMBER},
    "light": {"muted": "#55606a", "good": "#256b29", "warning": "#8a4b00"},
}

SIGNED, HEAT = tuple(maps.SIGNED), maps.HEAT


@cache
def signed(name: str) -> Colormap:
    """A diverging map, clear in the middle; unknown names give the first."""
    least, low, high, most = maps.ends(name)
    colours = [[*least, 1.0], [*low, 0.85], [*low, 0.0], [*high, 0.0], [*high, 0.85], [*most, 1.0]]
    return Colormap(colours, controls=[0, 0.25, 0.5, 0.5, 0.75, 1], name=f"seglens {name}", interpolation="linear")


@cache
def heat(name: str) -> Colormap:
    """A sequential map, clear at zero."""
    base = ensure_colormap(name if name in HEAT else HEAT[0])
    colours = np.array(base.map(np.linspace(0, 1, 64)))
    colours[:, 3] = np.clip(np.linspace(0, 1, 64) * 2.2, 0, 1)
    return Colormap(colours, name=f"seglens {name}")


@cache
def ramp(colour: str) -> Colormap:
    """From clear to one colour."""
    r, g, b = _rgb(colour if colour[7:] != "00" else "#ffffff")
    return Colormap([[r, g, b, 0], [r, g, b, 1]], name=f"seglens {colour}")


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
