"""A layer's channels: methods that weigh them, their sum as a map, the layer without one of them, the strongest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.explanation import Figure, Layer, Table
from seglens.core.method import Method
from seglens.core.param import Layer as LayerName
from seglens.engine.case import Case

SHOWN = 20  # channels in table and figure


class LayerMethod(Method):
    """A method that looks at one layer of the network."""

    works_on = "networks whose layers can be seen"

    layer: LayerName = None

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        case.layer(self.layer)


@dataclass(frozen=True, eq=False)
class Ablated:
    """A layer's answer with one channel at a time set to a level (K,)."""

    level: Tensor

    def __len__(self) -> int:
        """One per channel."""
        return len(self.level)

    def batch(self, activation: Tensor, start: int, stop: int) -> Tensor:
        """(n, K, *s)."""
        out = activation.repeat(stop - start, *(1,) * (activation.ndim - 1))
        for i, channel in enumerate(range(start, stop)):
            out[i, channel] = self.level[channel]
        return out


def channel_passes(case: Case, layer: str) -> tuple[float, int]:
    """What it takes to score a layer's channels one by one: forwards of the image, and those of a straight loop.

    From the layer on, one each; counted as whole ones, since the share behind the layer is not known yet.
    """
    channels = case.activation(layer).shape[1]
    return float(channels), channels


def activation_map(case: Case, activation: Tensor, weights: Tensor) -> NDArray[np.float32]:
    """A class activation map: ReLU(Σ_k w_k A_k) at image size (*space), of A (1, K, *s) and w (K,)."""
    summed = torch.einsum("k,k...->...", weights.to(activation), activation[0])[None, None]
    return case.at_image(summed).clip(min=0)


def cam_layer(name: str, cam: NDArray[np.float32], normalise: bool, unit: str) -> Layer:
    """A map from 0 upwards (*space) in its unit, or divided by its maximum; as it is where that is 0."""
    top = float(cam.max())
    shown = cam / top if normalise and top > 0 else cam
    return Layer(name, "heat", shown, "share of the maximum" if normalise else unit)


def strongest(columns: dict[str, Tensor], table: str, figure: str) -> tuple[Table, Figure]:
    """The channels of the largest sizes in the first column: all columns (K,) as a table, the first as bars."""
    first = next(iter(columns))
    order = columns[first].abs().argsort(descending=True)[:SHOWN].tolist()
    shown = {name: [float(values[k]) for k in order] for name, values in columns.items()}
    bars = Figure(figure, "bar", order, {first: shown[first]}, "channel", first)
    return Table(table, {"channel": order} | shown), bars
