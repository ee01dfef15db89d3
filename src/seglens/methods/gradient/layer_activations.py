"""Layer activations: what the channels of a layer answer, the strongest and those that match the region best."""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import shannon_entropy
from torch import Tensor

from seglens.core.explanation import Explanation, Figure, Kind, Layer, Table
from seglens.core.method import Fidelity, Need
from seglens.core.param import Layer as LayerName
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.channels import SHOWN, Ablated, LayerMethod, answers, overlaps, seen_at, stages

Show = Annotated[
    Literal["best match", "strongest", "mean"],
    Param("Of every depth: the channel that matches the region best, that answers most in it, or the mean of all."),
]
OneLayer = Annotated[LayerName, Param("Layer to look at closely.", source="layers", empty="one map of every depth")]


class LayerActivations(LayerMethod):
    """A look inside; no claim that the network needs what is seen.

    Normalisation rescales what a layer answers, and decoder channels look like the mask by themselves: how the score
    changes without a channel is in the table of a layer. Ask for the value ``dice`` to see how the mask changes.
    """

    title = "Layer activations"
    cite = "survey-146"
    survey = (146,)
    fidelity = Fidelity.AFTER
    needs = frozenset({Need.LAYER})
    locates = False

    layer: OneLayer = None
    show: Show = "best match"

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        if self.layer is not None:
            case.layer(self.layer)

    def passes(self, case: Case) -> tuple[float, int]:
        """One, and one for each channel in the table."""
        count = 1 if self.layer is None else 1 + min(SHOWN, case.activation(self.layer).shape[1])
        return float(count), count

    def run(self, case: Case) -> Explanation:
        """Maps of one layer and its channels as a table, or one map of every depth and the depths."""
        return self._depths(case) if self.layer is None else self._closely(case, self.layer)

    def _depths(self, case: Case) -> Explanation:
        names = [layer.name for layer in stages(case.model)]
        rows, shown = [], []
        for name, activation in zip(names, answers(case, names), strict=True):
            means, matches = overlaps(case, activation, case.target.region)
            strong, best = int(means.argmax()), int(matches.argmax())
            map_ = _map(case, activation, {"best match": best, "strongest": strong, "mean": None}[self.show])
            shown.append(_layer(f"{name}, {self.show}", map_, activation))
            rows.append(
                (name, seen_at(case, activation), strong, float(means[strong]), best, float(matches[best]), bits(map_))
            )
        columns = (
            "layer",
            "map",
            "strongest channel",
            "its mean in the region",
            "best match",
            "its IoU",
            "entropy (bits)",
        )
        table = Table("depths", {c: list(v) for c, v in zip(columns, zip(*rows, strict=True), strict=True)})
        matched = table.columns["its IoU"]
        top = int(np.argmax(matched))
        line = Figure("best match by depth", "bar", names, {"IoU": matched}, "layer", "IoU with the region")
        text = (
            f"{self.show.capitalize()} of {len(names)} depths: the channels of {names[top]} match the region of "
            f"{case.target.name} best, with IoU {matched[top]:.2f}. A match is no proof that the channel is needed."
        )
        # the first map is the one that is seen before all others
        return Explanation((shown.pop(top), *shown), (table,), (line,), text)

    def _closely(self, case: Case, name: str) -> Explanation:
        activation = case.activation(name)
        means, matches = overlaps(case, activation, case.target.region)
        order = matches.argsort(descending=True, stable=True)[:SHOWN].tolist()
        strong = int(means.argmax())
        order = order if strong in order else [*order[:-1], strong]
        drops = torch.zeros(len(order), dtype=torch.float64)
        for which, scores in case.layer_steps(name, Ablated(torch.zeros(activation.shape[1]), order)):
            drops[which] = scores - case.clean_score
        table = Table(
            "channels",
            {
                "channel": order,
                "IoU with the region": [float(matches[k]) for k in order],
                "mean in the region": [float(means[k]) for k in order],
                "entropy (bits)": [bits(_map(case, activation, k)) for k in order],
                "score change without it": drops.tolist(),
            },
        )
        layers = (
            _layer(f"best match: channel {order[0]}", _map(case, activation, order[0]), activation),
            _layer(f"strongest: channel {strong}", _map(case, activation, strong), activation),
            _layer("mean of all channels", _map(case, activation, None), activation),
        )
        needed = int(drops.abs().argmax())
        told = f"changes most, by {float(drops[needed]):+.4g}, without channel {order[needed]}"
        if not drops.any():
            told = "does not change without any of those in the table"
        text = (
            f"Layer {name} ({seen_at(case, activation)}): channel {order[0]} matches the region of {case.target.name} "
            f"best, with IoU {float(matches[order[0]]):.2f}; channel {strong} answers most in it. The score "
            f"{case.clean_score:.4g} {told}."
        )
        return Explanation(layers, (table,), text=text)


def bits(values: NDArray[np.float32]) -> float:
    """Entropy of a map in 256 levels from its least to its largest value: 0 for a constant one, 8 at most."""
    span = float(np.ptp(values))
    levels = np.round((values - values.min()) / (span or 1.0) * 255).astype(np.uint8)
    return float(shannon_entropy(levels)) + 0.0


def _map(case: Case, activation: Tensor, channel: int | None) -> NDArray[np.float32]:
    chosen = activation.mean(1, keepdim=True) if channel is None else activation[:, channel : channel + 1]
    return case.at_image(chosen)


def _layer(name: str, values: NDArray[np.float32], activation: Tensor) -> Layer:
    kind: Kind = "signed" if values.min() < 0 else "heat"
    return Layer(name, kind, values, "activation", resolution=tuple(activation.shape[2:]))
