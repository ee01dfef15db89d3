"""The pieces of a picture: image, mask, map; scale bar, outline, legend, colour bar. Matplotlib's objects only."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from seglens.app import maps
from seglens.app.report.planes import Picture, Window
from seglens.core.explanation import Layer
from seglens.models.spec import ModelSpec

INK, QUIET = "#1b1f24", "#5c6670"
_UNITS = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}


def frame(axes: Axes, title: str, subtitle: str = "") -> None:
    """No ticks, a thin frame, a bold title and a quiet line below it."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color="#c9ced4", linewidth=0.6)
    axes.text(0, 1.085, title, transform=axes.transAxes, fontsize=10.5, fontweight="bold", color=INK, va="bottom")
    axes.text(0, 1.025, subtitle, transform=axes.transAxes, fontsize=7.5, color=QUIET, va="bottom")


def show(axes: Axes, picture: Picture, aspect: float) -> None:
    """A picture with square corners and true proportions."""
    axes.imshow(picture, interpolation="nearest", aspect=aspect)


def scale_bar(axes: Axes, width: int, pixel: float, unit: str) -> None:
    """A bar of a round length in the lower right corner; nothing where the pixel size is unknown."""
    if unit not in _UNITS:
        return
    length = _round_length(0.22 * width * pixel)
    right, bottom = 0.96 * width, 0.955
    halo = [withStroke(linewidth=3.2, foreground="black", alpha=0.65)]
    place: dict[str, Any] = {
        "color": "white",
        "transform": axes.get_xaxis_transform(),
        "zorder": 6,
        "path_effects": halo,
    }
    (line,) = axes.plot(
        [right - length / pixel, right], [1 - bottom] * 2, linewidth=2.2, solid_capstyle="butt", **place
    )
    line.set_clip_on(False)
    text = f"{length:g} {_UNITS[unit]}"
    axes.text(right - length / pixel / 2, 1.018 - bottom, text, fontsize=7.5, ha="center", va="bottom", **place)


def mask(axes: Axes, labels: Picture, spec: ModelSpec) -> None:
    """Classes in their colours over the picture, with rims, and a legend of those that occur."""
    seen = [i for i in range(1, len(spec.classes)) if (labels == i).any()]
    paint = np.zeros((*labels.shape, 4), np.float32)
    for index in seen:
        paint[labels == index] = (*to_rgba(spec.classes[index].color)[:3], 0.5)
    axes.imshow(paint, interpolation="nearest", aspect=axes.get_aspect())
    for index in seen:
        outline(axes, labels == index, spec.classes[index].color, 0.7)
    handles = [Patch(facecolor=spec.classes[i].color, label=spec.classes[i].name) for i in seen]
    if handles:
        axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(-0.01, -0.01), ncols=min(4, len(handles)), fontsize=8,
            frameon=False, handlelength=0.9, handleheight=0.9, columnspacing=1.2, borderpad=0.2, labelcolor=INK,
        )  # fmt: skip


def saliency(axes: Axes, layer: Layer, values: Picture) -> None:
    """A map over what is there, clear where it says little, with its own colour bar."""
    low, high = layer.limits()
    norm, colours = Normalize(low, high, clip=True), map_colours(layer.kind)
    strength = np.nan_to_num(np.abs(values)) / max(abs(low), abs(high), 1e-12)
    opaque = np.clip(strength, 0, 1) ** 0.6 * 0.92
    axes.imshow(
        np.nan_to_num(values), cmap=colours, norm=norm, alpha=opaque, aspect=axes.get_aspect(),
        interpolation="nearest",
    )  # fmt: skip
    beside = axes.inset_axes((1.025, 0.0, 0.038, 1.0))
    figure = axes.figure
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=beside)
    bar.outline.set(linewidth=0.4, edgecolor="#c9ced4")
    bar.ax.tick_params(labelsize=6.5, length=2, width=0.5, colors=QUIET)
    bar.locator = _few_ticks()
    bar.update_ticks()
    bar.set_label(layer.unit, fontsize=7, color=QUIET, labelpad=3)


def map_colours(kind: str) -> Colormap:
    """The plugin's own colours of ``heat`` or ``signed`` maps; where those are clear, these are white."""
    if kind != "signed":
        return colormaps[maps.HEAT[0]]
    least, low, high, most = maps.ends("")
    stops = [(0.0, least), (0.25, low), (0.5, "white"), (0.75, high), (1.0, most)]
    return LinearSegmentedColormap.from_list("seglens signed", stops)


def outline(axes: Axes, region: Picture, colour: str, width: float, halo: str = "") -> None:
    """The rim of a region, with a darker line below it if asked for."""
    if not region.any() or region.all():
        return
    # A margin lets the rim close where the region touches the edge of the picture.
    padded = np.pad(region.astype(np.float32), 1)
    y, x = np.arange(padded.shape[0]) - 1, np.arange(padded.shape[1]) - 1
    if halo:
        axes.contour(x, y, padded, levels=[0.5], colors=[halo], linewidths=[2.4 * width], alpha=0.8)
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=[width])
    axes.set_xlim(-0.5, region.shape[1] - 0.5)
    axes.set_ylim(region.shape[0] - 0.5, -0.5)


def window(axes: Axes, part: Window) -> None:
    """A dashed square where the other pictures look closer."""
    y, x = part
    corner, size = (x.start - 0.5, y.start - 0.5), (x.stop - x.start, y.stop - y.start)
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=2.0, alpha=0.6))
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1.0, linestyle=(0, (4, 2))))


def remark(axes: Axes, sentence: str) -> None:
    """A few small words in the lower left corner of a picture; nothing if there are none."""
    if sentence:
        halo = [withStroke(linewidth=2.4, foreground="black", alpha=0.65)]
        axes.text(
            0.03, 0.03, sentence, transform=axes.transAxes, fontsize=6.5, color="white", va="bottom", zorder=6,
            path_effects=halo,
        )  # fmt: skip


def _round_length(longest: float) -> float:
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
