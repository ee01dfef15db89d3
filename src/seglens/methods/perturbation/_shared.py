"""What perturbation methods share: words of their forms, where windows go, answers per unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from seglens.core.boxes import Box
from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Figure, Layer, Table
from seglens.core.param import FillName, Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.perturb import Masks, Mixed, windows
from seglens.engine.units import UnitMasks, Units

Where = Annotated[
    Literal["whole", "context", "object"],
    Param("Cover anything, only windows that leave the region alone, or only pixels of the region."),
]
Scale = Annotated[
    Literal["none", "min-max", "z-score"],
    Param("How the map is scaled; metric targets such as dice barely move and may need it."),
]

Agreement = Annotated[
    float | None,
    Param(
        "Enough, when the maps of two halves of the masks agree by this rank correlation.",
        gt=0,
        lt=1,
        step=0.01,
        empty="all masks",
    ),
]
M_co = TypeVar("M_co", bound=Masks, covariant=True)


@dataclass(frozen=True, eq=False)
class UnitCopies(Mixed[M_co]):
    """Copies whose masks are constant on each unit.

    Args:
        x, fill: (1, C, *space).
        masks: one per copy.
        units: what is taken away as one.
    """

    units: Units


def unit_copies(case: Case, units: Units, keep: Tensor, fill: FillName) -> UnitCopies[UnitMasks]:
    """A copy for each row of ``keep`` (N, units): 1 keeps a unit, 0 fills it."""
    return UnitCopies(case.x, case.fill(fill, units=units), units.masks(keep), units)


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
            f"No window of {plural(size, 'pixel')} lies outside the region to explain.",
            fix="Use a smaller --window, or --where whole.",
        )
    return boxes


def unit_layers(case: Case, copies: UnitCopies[Masks], columns: Mapping[str, Tensor], unit: str) -> tuple[Layer, ...]:
    """A signed map of one value per unit, the units as labels from 1 (0: never taken away), then maps of errors.

    A channel has no place. For channels the map is what one more forward pass tells: per pixel how far the
    target's value falls when the channel of the largest value alone is filled; there are no other layers then.

    Args:
        case: the question.
        copies: what was taken away, and filled with what.
        columns: one number per unit (M,) by name: the value, then what it may be wrong by.
        unit: what they mean.
    """
    units, (name, *errors) = copies.units, columns
    values = columns[name].cpu()
    if units.spatial:
        drawn = (units.labels[0].cpu() + 1).numpy().astype(np.int32)
        layers = (Layer(name, "signed", units.spread(values).numpy(), unit), Layer("units", "labels", drawn))
        return layers + tuple(Layer(e, "heat", units.spread(columns[e]).numpy(), unit) for e in errors)
    most = int(values.abs().argmax())
    x = torch.where(units.labels == most, copies.fill, case.x)
    change = case.target.per_pixel(case.logits) - case.target.per_pixel(case.forward(x))
    told = f"drop of {case.target.value} without {units.names[most]}"
    return (Layer(told, "signed", change[0].float().cpu().numpy(), f"drop of {case.target.value}"),)


def pixel_layers(case: Case, columns: Mapping[str, Tensor], unit: str) -> tuple[Layer, ...]:
    """Maps over the case's field (*field) at image size: a signed one of the value, then of what it may be wrong by."""
    shown = {name: case.paste(values).float().numpy() for name, values in columns.items()}
    return tuple(Layer(n, "heat" if i else "signed", data, unit) for i, (n, data) in enumerate(shown.items()))


def unit_table(name: str, units: Units, columns: Mapping[str, Tensor]) -> Table:
    """A table with one row per unit: its number (as in the labels layer), its name, further columns (M,)."""
    own: dict[str, list[Any]] = {"unit": list(range(1, len(units) + 1)), "name": list(units.names)}
    return Table(name, own | {key: values.tolist() for key, values in columns.items()})


def unit_bars(name: str, units: Units, series: Mapping[str, Tensor], y_label: str = "", most: int = 20) -> Figure:
    """Bars of the units that have the largest sizes in the first series, from the largest down."""
    first = next(iter(series.values()))
    order = first.abs().argsort(descending=True, stable=True)[:most]
    bars = {key: [float(v) for v in values[order]] for key, values in series.items()}
    return Figure(name, "bar", [_called(units, int(i)) for i in order], bars, units.kind, y_label)


def unit_name(units: Units, number: int) -> str:
    """A unit as a sentence calls it, to be found in the table and in the labels layer."""
    place = f"unit {number + 1}"
    if units.kind in ("objects", "labels"):
        return f"{place} ({units.kind[:-1]} {units.names[number]})"
    return units.names[number] if units.kind in ("channels", "slices") else place


def settled(taken: Sequence[int], curves: Mapping[str, Sequence[float]], x_label: str, y_label: str = "") -> Figure:
    """Curves over how many copies were taken, as they are now: partial answers keep theirs."""
    series: dict[str, list[Any]] = {key: [*curve] for key, curve in curves.items()}
    return Figure("convergence", "line", [*taken], series, x_label, y_label)


def _called(units: Units, number: int) -> str:
    """A channel or slice by its name, a place by its number in the labels layer."""
    return units.names[number] if units.kind in ("channels", "slices") else str(number + 1)
