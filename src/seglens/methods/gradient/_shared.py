"""What gradient methods share: from a gradient of the input to one map."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.explanation import Layer
from seglens.core.param import Param

Show = Annotated[
    Literal["magnitude", "signed"],
    Param("Largest size over the channels, or the sum over channels with its sign."),
]

Weights = Annotated[
    Literal["signed", "absolute", "positive"],
    Param("What happens to channel weights below zero: kept, made positive, or dropped."),
]


def input_map(name: str, gradient: Tensor, show: str, unit: str) -> Layer:
    """One map (*space) of a gradient of the input (1, C, *space)."""
    values = gradient[0].cpu()
    shown = values.abs().amax(0) if show == "magnitude" else values.sum(0)
    return Layer(name, "heat" if show == "magnitude" else "signed", as_map(shown), unit)


def as_map(values: Tensor) -> NDArray[np.float32]:
    """A tensor (*space) as float32 array."""
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float32)
