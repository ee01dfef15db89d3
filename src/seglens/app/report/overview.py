"""One picture that tells the story: the image, what the model drew, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seglens.app import maps
from seglens.app.report import panels
from seglens.app.report.planes import Picture, Plane, Window, choose_plane, colours, full_map, greyed, main_map, zoom
from seglens.app.report.targets import region_of, told
from seglens.core.catalogue import METHODS
from seglens.core.explanation import Explanation
from seglens.core.image import Image
from seglens.models.spec import ModelSpec

DPI = 200
_PANEL = 3.15
_MOST = 1200


@dataclass(frozen=True, eq=False)
class _Scene:
    """What all panels share."""

    image: Image
    spec: ModelSpec
    plane: Plane
    picture: Picture
    labels: Picture
    aspect: float


def overview(image: Image, segmentation: Any, explanations: Sequence[Explanation], path: Path, spec: ModelSpec) -> Path:
    """Draw image, mask and saliency maps side by side.

    Args:
        image: the view that was explained.
        segmentation: its :class:`~seglens.session.Segmentation`.
        explanations: answers to show, each with its record; those without a map are left out.
        path: where the PNG goes.
        spec: the model's description; names and colours of the classes come from it.

    Returns:
        The path.
    """
    shown = tuple(e for e in explanations if main_map(e) is not None)
    plane = choose_plane(image, spec.axes, shown)
    labels = plane.flat(segmentation.labels, segmentation.axes)
    y, x = image.scale("YX")
    scene = _Scene(image, spec, plane, colours(image, plane), labels, y / x)
    regions = [region_of(e, segmentation, spec) for e in shown]
    flat = [None if r is None else plane.flat(r) for r in regions]
    figure, grid = _figure(2 + len(shown), labels.shape[0] * y / (labels.shape[1] * x))
    windows = [_part(e, r, scene) for e, r in zip(shown, flat, strict=True)]
    _image_panel(grid[0], scene)
    _mask_panel(grid[1], scene, flat, windows)
    for axes, explanation, region, window in zip(grid[2:], shown, flat, windows, strict=True):
        _map_panel(axes, scene, explanation, region, window)
    _words(figure, scene, shown)
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.18, facecolor="white")
    return path


def _figure(count: int, tall: float) -> tuple[Figure, list[Axes]]:
    columns = count if count <= 4 else 3 if count in (5, 6, 9) else 4
    rows = -(-count // columns)
    tall = float(np.clip(tall, 0.4, 2.0))
    figure = Figure(figsize=(columns * _PANEL * 1.32, rows * (_PANEL * tall + 0.75) + 0.85))
    FigureCanvasAgg(figure)
    top, bottom = 1 - 1.2 / figure.get_figheight(), 0.38 / figure.get_figheight()
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.34, "hspace": 0.27})
    figure.subplots_adjust(left=0.02, right=0.94, top=top, bottom=bottom)
    cells: list[Axes] = list(grid.ravel())
    for spare in cells[count:]:
        spare.set_axis_off()
    return figure, cells[:count]


def _image_panel(axes: Axes, scene: _Scene) -> None:
    panels.show(axes, _smaller(scene.picture), scene.aspect)
    size = " × ".join(map(str, scene.labels.shape)) + " pixels"
    where = f", slice {scene.plane.z}" if scene.plane.z is not None else ""
    panels.frame(axes, "Image", size + where)
    step = _step(scene.picture.shape)
    pixel = scene.image.scale("X")[0] * step
    panels.scale_bar(axes, _smaller(scene.picture).shape[1], pixel, scene.image.unit)


def _mask_panel(axes: Axes, scene: _Scene, regions: list[Picture | None], windows: list[Window]) -> None:
    panels.show(axes, scene.picture, scene.aspect)
    panels.mask(axes, scene.labels, scene.spec)
    background = float((scene.labels == 0).mean())
    panels.frame(axes, "What the model drew", f"{1 - background:.0%} of the image is not {scene.spec.classes[0].name}")
    for region, part in zip(regions, windows, strict=True):
        small = (part[0].stop - part[0].start) < scene.labels.shape[0]
        if small and region is not None:
            panels.outline(axes, region, "white", 0.9, "black")
            panels.window(axes, part)


def _map_panel(axes: Axes, scene: _Scene, explanation: Explanation, region: Picture | None, part: Window) -> None:
    layer = main_map(explanation)
    if layer is None:
        return
    values = scene.plane.flat(full_map(layer, scene.image.space(scene.plane.axes)))[part]
    panels.show(axes, greyed(scene.picture)[part], scene.aspect)
    panels.saliency(axes, layer, values)
    if region is not None:
        dark = layer.kind == "signed"
        # A whole class has many rims: thinner lines leave more of the map to be seen.
        width = 0.6 if region.mean() > 0.02 else 0.9
        panels.outline(axes, region[part], "#101418" if dark else "white", width, "white" if dark else "black")
    panels.frame(axes, _title(explanation, layer.name), told(explanation))
    panels.remark(axes, layer.enlarged())
    panels.scale_bar(axes, values.shape[1], scene.image.scale("X")[0], scene.image.unit)


def _title(explanation: Explanation, layer: str) -> str:
    record = explanation.record
    if record is None:
        return layer
    title = METHODS[record.method].title if record.method in METHODS else record.method
    plain = "".join(c for c in title.lower() if c.isalnum())
    same = "".join(c for c in layer.lower() if c.isalnum()) in plain or layer.lower() == "saliency"
    depth = record.parameters.get("layer")
    return f"{title if same else f'{title}: {layer}'}{f' at {depth}' if depth else ''}"


def _part(explanation: Explanation, region: Picture | None, scene: _Scene) -> Window:
    layer = main_map(explanation)
    if layer is None:
        return zoom(region, scene.labels.shape)
    evidence = scene.plane.flat(full_map(layer, scene.image.space(scene.plane.axes)))
    return zoom(region, scene.labels.shape, evidence)


def _words(figure: Figure, scene: _Scene, shown: tuple[Explanation, ...]) -> None:
    title = f"What {scene.spec.name} looked at" if shown else f"What {scene.spec.name} drew"
    inch = 1 / figure.get_figheight()
    left = 0.02
    figure.text(left, 1 - 0.12 * inch, title, fontsize=14, fontweight="bold", color=panels.INK, va="top")
    figure.text(left, 1 - 0.40 * inch, scene.image.name, fontsize=9, color=panels.QUIET, va="top")
    figure.text(left, 0.02 * inch, _footer(scene, shown), fontsize=7, color=panels.QUIET, va="bottom")


def _footer(scene: _Scene, shown: tuple[Explanation, ...]) -> str:
    model = scene.spec.name + (f" ({scene.spec.sha256[:12]})" if scene.spec.sha256 else "")
    record = next((e.record for e in shown if e.record is not None), None)
    parts = [f"Model {model}"]
    if record is not None:
        parts += [f"SegLens {record.versions.get('seglens', '')}", f"seed {record.seed}", record.created[:10]]
    return " · ".join([*parts, *_key(shown)])


def _key(shown: tuple[Explanation, ...]) -> list[str]:
    """What outlines and the colours of signed maps mean; maps are named where they mean different things."""
    if not shown:
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for answer in shown:
        layer = main_map(answer)
        if layer is not None and layer.kind == "signed":
            found.setdefault(maps.sides(layer.unit, layer.name), []).append(_title(answer, layer.name))
    told = [
        f"{', '.join(dict.fromkeys(titles)) if len(found) > 1 else 'Signed maps'}: {maps.ABOVE} {above}, "
        f"{maps.BELOW} {below}."
        for (above, below), titles in found.items()
    ]
    return [" ".join(["Outline: what was explained.", *told])]


def _step(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape[:2]) // _MOST))


def _smaller(picture: Picture) -> Picture:
    step = _step(picture.shape)
    return picture[::step, ::step]
