"""What gradient methods share: from values per pixel and channel to maps, one for all channels and one for each."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.explanation import Layer, Table
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.models.device import fine_sum

CHANNELS = 6  # most that have a map of their own

Show = Annotated[
    Literal["magnitude", "signed"],
    Param("Largest size over the channels, or the sum over channels with its sign."),
]

EachChannel = Annotated[
    bool, Param(f"Also a map for each channel (stain, modality), for the {CHANNELS} that count most.")
]

Weights = Annotated[
    Literal["signed", "absolute", "positive"],
    Param("What happens to channel weights below zero: kept, made positive, or dropped."),
]


def input_map(name: str, gradient: Tensor, show: str, unit: str) -> Layer:
    """One map (*space) of values for each channel of the input (1, C, *space)."""
    values = gradient[0]
    shown = values.abs().amax(0) if show == "magnitude" else values.sum(0)
    return Layer(name, "heat" if show == "magnitude" else "signed", as_map(shown), unit)


def input_layers(case: Case, name: str, values: Tensor, show: str, unit: str, each: bool) -> tuple[Layer, ...]:
    """A map for all channels, and with ``each`` a signed one for those that count most, in the order of the image.

    Args:
        case: whose channels.
        name: of the map.
        values: (1, C, *space).
        show: see :data:`Show`.
        unit: of the values.
        each: whether channels have maps of their own; an image of one channel has not.
    """
    first, names = input_map(name, values, show, unit), case.model.spec.channels
    if not each or len(names) == 1:
        return (first,)
    strongest = channel_sums(values).argsort(descending=True)[:CHANNELS]
    if len(names) > CHANNELS:
        case.run.note(f"Of {len(names)} channels the {CHANNELS} that count most have a map; the table has all.")
    return (
        first,
        *(Layer(f"{name}: {names[c]}", "signed", as_map(values[0, c]), unit) for c in sorted(strongest.tolist())),
    )


def channel_sums(values: Tensor) -> Tensor:
    """How much each channel of (1, C, *space) has in all, whatever its sign: (C,) in float64 on the CPU."""
    return values[0].abs().flatten(1).sum(1).cpu().double()


def channel_table(case: Case, values: Tensor) -> tuple[Table, ...]:
    """Per channel of (1, C, *space) the sum, and its share of all sizes; nothing for an image of one channel."""
    names, sizes = case.model.spec.channels, channel_sums(values)
    if len(names) == 1:
        return ()
    share = sizes / sizes.sum().clamp(min=1e-300)
    sums = fine_sum(values[0].flatten(1), 1).cpu()
    return (Table("channels", {"channel": [*names], "sum": sums.tolist(), "share of the size": share.tolist()}),)


def as_map(values: Tensor) -> NDArray[np.float32]:
    """A tensor (*space) as float32 array."""
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float32)
