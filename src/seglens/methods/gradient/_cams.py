"""What class activation maps share: a layer's activations and gradients, weighted, as one map."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from seglens.core.explanation import Explanation
from seglens.core.method import Need
from seglens.core.param import Normalise
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod, activation_map, cam_layer, seen_at, strongest


class CAM(LayerMethod):
    """A class activation map; a subclass says with what a layer's answers are weighted.

    Class attributes:
        rectified: what speaks against the target is cut off; without, the map is signed.
    """

    needs = frozenset({Need.GRADIENT, Need.LAYER})
    rectified: ClassVar[bool] = True

    normalise: Normalise = True

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Weights per channel (K,), or per channel and place (K, *s), of A and ∂T/∂A (K, *s)."""
        raise NotImplementedError

    def remark(self, activation: Tensor, gradient: Tensor) -> str:
        """What else a reader has to know, as a further sentence."""
        return ""

    def run(self, case: Case) -> Explanation:
        """A map at image size, and what each channel adds to it."""
        name = case.layer(self.layer)
        activation, gradient = case.activations(name)
        weights = self.weigh(activation[0], gradient[0])
        cam = activation_map(case, activation, weights, rectified=self.rectified)
        if weights.ndim == 1:
            table, bars = strongest({"weight": weights}, "channel weights", "channel weights")
        else:
            share = (weights * activation[0]).flatten(1).sum(1)
            table, bars = strongest({"sum of its map": share}, "channels", "what each channel adds")
        layer = cam_layer(self.title, cam, self.normalise, case.target.value, "heat" if self.rectified else "signed")
        told = f"{self.title} of {case.target.name} at layer {name} ({seen_at(case, activation)}); "
        if not cam.any():
            told += "nothing there speaks for it, and the map is zero."
        else:
            told += f"its maximum before scaling is {float(cam.max()):.4g}."
        text = " ".join([told, self.remark(activation[0], gradient[0])]).strip()
        return Explanation((layer,), (table,), (bars,), text)


def spatial_mean(values: Tensor) -> Tensor:
    """Per channel the mean over places, (K, *s) to (K,)."""
    return values.flatten(1).mean(1)


def below_zero(activation: Tensor, instead: str) -> str:
    """What to say where a formula for rectified layers meets answers (K, *s) below zero; else nothing."""
    return f"The layer answers below zero, too, so {instead}." if bool((activation < 0).any()) else ""
