"""Seg-Ablation-CAM: a layer's channels, weighted by how much the target drops without each of them."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Layer as LayerName
from seglens.core.param import Normalise, Param
from seglens.engine.case import Case

Ablate = Annotated[
    Literal["zero", "mean"], Param("What a channel is set to: zero, or its mean over the image (less of a shock).")
]
SHOWN = 20  # channels in table and figure


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


class SegAblationCAM(Method):
    """Weights are the share of the score's size that is lost; no gradient is needed.

    The share is of the size: dividing by a negative score would turn every sign.
    """

    title = "Seg-Ablation-CAM"
    cite = "desai2020"
    survey = (81, 82, 94)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    works_on = "networks whose layers can be seen"
    needs = frozenset({Need.LAYER})

    layer: LayerName = None
    ablate: Ablate = "zero"
    normalise: Normalise = True

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        case.layer(self.layer)

    def passes(self, case: Case) -> tuple[float, int]:
        """One pass from the layer on per channel; counted as whole ones, since the share behind it is not known yet."""
        channels = case.activation(case.layer(self.layer)).shape[1]
        return float(channels), channels

    def run(self, case: Case) -> Explanation:
        """A heat map at image size, the strongest channel, and the drop without each channel."""
        name = case.layer(self.layer)
        activation = case.activation(name)
        level = activation[0].flatten(1).mean(1)
        drops = torch.zeros(len(level), dtype=torch.float64)
        change = Ablated(level if self.ablate == "mean" else torch.zeros_like(level))
        for which, scores in case.layer_steps(name, change):
            drops[which] = case.clean_score - scores
            case.run.partial(lambda: self._answer(case, name, activation, drops))
        return self._answer(case, name, activation, drops)

    def _answer(self, case: Case, name: str, activation: Tensor, drops: Tensor) -> Explanation:
        weights = drops / max(abs(case.clean_score), 1e-12)
        summed = torch.einsum("k,k...->...", weights.to(activation), activation[0])[None, None]
        cam = case.at_image(summed).clip(min=0)
        top = float(cam.max())
        if self.normalise and top > 0:
            cam = cam / top
        order = drops.abs().argsort(descending=True)[:SHOWN].tolist()
        first = order[0]
        layers = (
            Layer("Seg-Ablation-CAM", "heat", cam, "share of the maximum" if self.normalise else "share of the score"),
            Layer(f"channel {first}", "signed", case.at_image(activation[:, first : first + 1]), "activation"),
        )
        columns = {"drop": [float(drops[k]) for k in order], "weight": [float(weights[k]) for k in order]}
        figure = Figure("drop without each channel", "bar", order, {"drop": columns["drop"]}, "channel", "drop")
        text = (
            f"Seg-Ablation-CAM of {case.target.name} at layer {name} ({len(drops)} channels set to {self.ablate}). The "
            f"score {case.clean_score:.4g} changes most, by {-float(drops[first]):+.4g}, without channel {first}; "
            f"without any one of {int((drops.abs() < 0.01 * drops.abs().max()).sum())} channels it hardly moves."
        )
        return Explanation(layers, (Table("channels", {"channel": order} | columns),), (figure,), text)
