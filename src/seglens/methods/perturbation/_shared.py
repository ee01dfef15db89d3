"""What perturbation methods share: words of their forms, where windows go, answers per unit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Figure, Layer, Table
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.perturb import Box, windows
from seglens.engine.units import Units

Where = Annotated[
    Literal["whole", "context", "object"],
    Param("Cover anything, only windows that leave the region alone, or only pixels of the region."),
]
Scale = Annotated[
    Literal["none", "min-max", "z-score"],
    Param("How the map is scaled; metric targets such as dice barely move and may need it."),
]


def placed(case: Case, window: int | None, stride: int | None, where: str) -> list[Box]:
    """Windows over the image, by default 1/16 of it and half overlapping, kept as ``where`` says.

    Raises:
        NoSuchRegion: none is left.
    """
    size = min(window or max(4, min(case.shape) // 16), *case.shape)
    boxes = windows(case.shape, size, stride or max(1, size // 2))
    if where != "whole":
        touches = where == "object"
        boxes = [box for box in boxes if case.target.region[box].any() == touches]
    if not boxes:
        raise NoSuchRegion(
            f"No window of {size} pixels lies outside the region to explain.",
            fix="Use a smaller --window, or --where whole.",
        )
    return boxes


def unit_layers(
    case: Case, units: Units, values: Tensor, name: str, fill: Tensor | None = None, unit: str = ""
) -> tuple[Layer, ...]:
    """A signed map of one value per unit, and the units themselves as labels from 1 (0: never taken away).

    A channel has no place. For channels the map is what one more forward pass tells: per pixel how far the
    target's value falls when the channel of the largest value alone is replaced; there are no labels then.

    Args:
        case: the question.
        units: what was taken away.
        values: one per unit (M,).
        name: of the map.
        fill: (1, C, *space) what replaced the channels; the mean of each channel by default.
        unit: what the values mean.
    """
    if units.spatial:
        labels = (units.labels[0].cpu() + 1).numpy().astype(np.int32)
        return Layer(name, "signed", units.spread(values.cpu()).numpy(), unit), Layer("units", "labels", labels)
    most = int(values.abs().argmax())
    instead = case.fill("mean") if fill is None else fill
    x = torch.where(units.labels == most, instead, case.x)
    change = case.target.per_pixel(case.logits) - case.target.per_pixel(case.forward(x))
    told = f"drop of {case.target.value} without {units.names[most]}"
    return (Layer(told, "signed", change[0].float().cpu().numpy(), f"drop of {case.target.value}"),)


def unit_table(name: str, units: Units, columns: dict[str, list[Any]]) -> Table:
    """A table with one row per unit: its number (as in the labels layer), its name, further columns."""
    own: dict[str, list[Any]] = {"unit": list(range(1, len(units) + 1)), "name": list(units.names)}
    return Table(name, own | columns)


def unit_bars(name: str, units: Units, series: dict[str, Tensor], y_label: str = "", most: int = 20) -> Figure:
    """Bars of the units that have the largest sizes in the first series, from the largest down."""
    first = next(iter(series.values()))
    order = first.abs().argsort(descending=True, stable=True)[:most]
    bars = {key: [float(v) for v in values[order]] for key, values in series.items()}
    return Figure(name, "bar", [_called(units, int(i)) for i in order], bars, units.kind, y_label)


def _called(units: Units, number: int) -> str:
    """A channel or slice by its name, a place by its number in the labels layer."""
    return units.names[number] if units.kind in ("channels", "slices") else str(number + 1)
