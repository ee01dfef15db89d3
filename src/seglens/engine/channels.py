"""A layer's channels: methods that weigh them, their sum as a map, the layer without one of them, the strongest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.explanation import Figure, Kind, Layer, Table
from seglens.core.method import Method
from seglens.core.param import Layer as LayerName
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.perturb import Masks
from seglens.models.device import finest
from seglens.models.layers import LayerInfo, layers
from seglens.models.segmentation import SegmentationModel

SHOWN = 20  # channels in table and figure
FLAT = 1e-6  # of a layer's largest size: a channel that varies less is the same everywhere
AT_ONCE = 16  # channels that are enlarged at a time
PART = 2**16  # places at a time where sums run in double precision


class LayerMethod(Method):
    """A method that looks at one layer of the network."""

    works_on = "networks whose layers can be seen"

    layer: LayerName = None

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        case.layer(self.layer)


@dataclass(frozen=True, eq=False)
class Ablated:
    """A layer's answer with one channel at a time set to a level.

    Args:
        level: (K,), of every channel of the layer.
        channels: which ones, in order; by default all.
    """

    level: Tensor
    channels: Sequence[int] | None = None

    def __len__(self) -> int:
        """One per channel."""
        return len(self.level if self.channels is None else self.channels)

    def batch(self, activation: Tensor, start: int, stop: int) -> Tensor:
        """(n, K, *s)."""
        chosen = range(start, stop) if self.channels is None else self.channels[start:stop]
        out = activation.repeat(stop - start, *(1,) * (activation.ndim - 1))
        for i, channel in enumerate(chosen):
            out[i, channel] = self.level[channel]
        return out


@dataclass(frozen=True, eq=False)
class ChannelMasks(Masks):
    """Channels of a layer as soft masks of the image: 1 where a channel answers most, 0 where least (card B/B12).

    Args:
        case: the image and its size.
        activation: (1, K, *s).
        channels: which of them, none of them flat.
    """

    case: Case
    activation: Tensor
    channels: Sequence[int]

    def __len__(self) -> int:
        """One mask per channel."""
        return len(self.channels)

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, 1, *space)."""
        full = self.case.enlarged(self.activation[0, list(self.channels[start:stop])][:, None])
        tail = (-1, *(1,) * (full.ndim - 1))
        low, high = (edge.reshape(tail) for edge in full.flatten(1).aminmax(dim=1))
        return (full - low) / (high - low)

    def parts(self) -> Iterable[Tensor | str]:
        """What they are made of."""
        return [self.activation, str(list(self.channels)), str(self.case.shape)]


def answers(case: Case, names: Sequence[str]) -> list[Tensor]:
    """What layers answer to the clean image, (1, K, *s) each, in one forward pass."""
    return case.clean_at(names)


def overlaps(case: Case, activation: Tensor, mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Channels of a layer against a mask (*space): the mean answer in it, and how well the strongest places match it.

    Each channel's strongest places are as many as the mask has pixels; the match is intersection over union.

    Returns:
        Means and matches, (K,) each.
    """
    inside = torch.from_numpy(mask).to(activation.device).flatten()
    count = int(inside.sum())
    means, matches = [], []
    parts = torch.split(activation[0][:, None], AT_ONCE)
    for done, part in enumerate(parts):
        case.run.progress(done, len(parts), "channels")
        full = case.enlarged(part).flatten(1)
        least = full.topk(count, 1).values[:, -1:]
        top = full >= least
        means.append(full[:, inside].mean(1))
        matches.append((top & inside).sum(1) / (top | inside).sum(1))
    return torch.cat(means), torch.cat(matches)


def busiest(activation: Tensor, most: int | None = None, *, flat: bool = False) -> list[int]:
    """The channels of A (1, K, *s), in order; at most so many, those of the largest mean size.

    A channel that is the same everywhere makes no mask, and is left out; with ``flat`` it counts like any other, if
    it is not zero.
    """
    values = activation[0].flatten(1)
    size = values.abs().mean(1)
    counts = size > 0 if flat else (values.amax(1) - values.amin(1)) > FLAT * values.abs().max()
    chosen = torch.where(counts, size, -1.0).argsort(descending=True, stable=True)
    return sorted(k for k in chosen[: len(size) if most is None else most].tolist() if counts[k])


def channel_passes(case: Case, layer: str) -> tuple[float, int]:
    """What it takes to score a layer's channels one by one: forwards of the image, and those of a straight loop.

    From the layer on, one each; counted as whole ones, since the share behind the layer is not known yet.
    """
    channels = case.activation(layer).shape[1]
    return float(channels), channels


def activation_map(case: Case, activation: Tensor, weights: Tensor, *, rectified: bool = True) -> NDArray[np.float32]:
    """A class activation map at image size (*space): Σ_k w_k A_k, enlarged, then what is below zero cut off.

    Args:
        case: the image and its size.
        activation: A, (1, K, *s).
        weights: one per channel (K,), or one per channel and place (K, *s).
        rectified: ``False`` keeps what is below zero.
    """
    each = "k,k...->..." if weights.ndim == 1 else "k...,k...->..."
    cam = case.at_image(torch.einsum(each, weights.to(activation), activation[0])[None, None])
    return cam.clip(min=0) if rectified else cam


def cam_layer(
    name: str, cam: NDArray[np.float32], normalise: bool, unit: str, kind: Kind = "heat", own: Sequence[int] = ()
) -> Layer:
    """A map (*space) in its unit, or divided by its largest size; as it is where that is 0.

    Args:
        name, unit, kind: of the map.
        cam: at image size.
        normalise: divide it.
        own: the layer's own resolution, before the map was enlarged.
    """
    top = float(np.abs(cam).max())
    shown = cam / top if normalise and top > 0 else cam
    return Layer(name, kind, shown, "share of the maximum" if normalise else unit, resolution=tuple(own))


def seen_at(case: Case, activation: Tensor) -> str:
    """The true resolution of a layer's map (1, K, *s), in words: ``128 channels, 16×16 map shown at 256×256``."""
    own, full = ("×".join(map(str, shape)) for shape in (activation.shape[2:], case.shape))
    return f"{plural(activation.shape[1], 'channel')}, {own} map" + (f" shown at {full}" if own != full else "")


def principal(activation: Tensor) -> tuple[Tensor, float]:
    """The direction along which a layer's answers differ most from place to place (card B/B12, Eigen-CAM).

    The first right singular vector of the centred matrix of places and channels, by its K × K Gram matrix: the
    singular value decomposition of the matrix itself would take memory of the square of the places. Its sign, which
    is free, is such that the few places that stand out from the many are positive.

    Args:
        activation: (1, K, *s).

    Returns:
        A unit vector (K,), in float64 where the device has it, and the share of the variance along it (0 where the
        layer is constant).
    """
    flat = activation[0].flatten(1)
    mean = flat.mean(1, keepdim=True, dtype=finest(flat.device))
    parts = torch.split(flat, PART, 1)
    gram = mean.new_zeros(len(flat), len(flat))
    for part in parts:
        gram += (part - mean) @ (part - mean).T
    sizes, vectors = torch.linalg.eigh(gram)
    first, total = vectors[:, -1], float(sizes.clamp(min=0).sum())
    skewness = sum(float(((first @ (part - mean)) ** 3).sum()) for part in parts)
    return (-first if skewness < 0 else first), (float(sizes[-1]) / total if total > 0 else 0.0)


def stages(model: SegmentationModel) -> tuple[LayerInfo, ...]:
    """One layer for each depth of a network, from input to output; never the answer itself.

    Layers of one stride that follow each other are one depth; of these the one with most channels counts, of those
    the last: a U-Net has one stage per level down, the bottleneck, and one per level up.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript.
    """
    every = layers(model)
    inside = [layer for layer in every if not layer.final] or every
    runs = (list(run) for _, run in groupby(inside, key=lambda layer: layer.stride))
    return tuple(max(run, key=lambda layer: (layer.channels, layer.order)) for run in runs)


def strongest(columns: dict[str, Tensor], table: str, figure: str) -> tuple[Table, Figure]:
    """The channels of the largest sizes in the first column: all columns (K,) as a table, the first as bars."""
    first = next(iter(columns))
    order = columns[first].abs().argsort(descending=True)[:SHOWN].tolist()
    shown = {name: [float(values[k]) for k in order] for name, values in columns.items()}
    bars = Figure(figure, "bar", order, {first: shown[first]}, "channel", first)
    return Table(table, {"channel": order} | shown), bars
