"""Seg-Ablation-CAM: a layer's channels, weighted by how much the target drops without each of them."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Need
from seglens.core.param import Normalise, Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.channels import Ablated, LayerMethod, activation_map, cam_layer, channel_passes, strongest
from seglens.engine.scored import Drops, follow

Ablate = Annotated[
    Literal["zero", "mean"], Param("What a channel is set to: zero, or its mean over the image (less of a shock).")
]


class SegAblationCAM(LayerMethod):
    """Weights are the share of the score's size that is lost; no gradient is needed.

    The share is of the size: dividing by a negative score would turn every sign.
    """

    title = "Seg-Ablation-CAM"
    cite = "desai2020"
    survey = (81, 82, 94)
    fidelity = Fidelity.EXACT
    needs = frozenset({Need.LAYER})

    ablate: Ablate = "zero"
    normalise: Normalise = True

    def passes(self, case: Case) -> tuple[float, int]:
        """One per channel."""
        return channel_passes(case, case.layer(self.layer))

    def run(self, case: Case) -> Explanation:
        """A heat map at image size, the strongest channel, and the drop without each channel."""
        name = case.layer(self.layer)
        activation = case.activation(name)
        level = activation[0].flatten(1).mean(1)
        change = Ablated(level if self.ablate == "mean" else torch.zeros_like(level))
        course = Drops(len(level), case.clean_score)
        steps = case.layer_steps(name, change)
        return follow(case, steps, course, lambda: self._answer(case, name, activation, course.values))

    def _answer(self, case: Case, name: str, activation: Tensor, drops: Tensor) -> Explanation:
        weights = drops / max(abs(case.clean_score), 1e-12)
        table, bars = strongest({"drop": drops, "weight": weights}, "channels", "drop without each channel")
        first = table.columns["channel"][0]
        own, cam = tuple(activation.shape[2:]), activation_map(case, activation, weights)
        shown = cam_layer(self.title, cam, self.normalise, "share of the score", own=own)
        one = case.at_image(activation[:, first : first + 1])
        channel = Layer(f"channel {first}", "signed", one, "activation", resolution=own)
        text = (
            f"Seg-Ablation-CAM of {case.target.name} at layer {name} ({plural(len(drops), 'channel')} set to "
            f"{self.ablate}). The score {case.clean_score:.4g} changes most, by {-float(drops[first]):+.4g}, without "
            f"channel {first}; without any one of {int((drops.abs() < 0.01 * drops.abs().max()).sum())} channels it "
            "hardly moves."
        )
        return Explanation((shown, channel), (table,), (bars,), text)
