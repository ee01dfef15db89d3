"""Seg-Grad-CAM: a layer's channels, weighted by how much the target asks for each of them."""

import torch

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Layer as LayerName
from seglens.core.param import Normalise
from seglens.engine.case import Case
from seglens.methods.gradient._shared import Weights


class SegGradCAM(Method):
    """Weights are the spatial mean of the target's gradient at a layer; the weighted sum is rectified."""

    title = "Seg-Grad-CAM"
    cite = "vinogradova2020"
    survey = (16,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    works_on = "networks whose layers can be seen"
    needs = frozenset({Need.GRADIENT, Need.LAYER})

    layer: LayerName = None
    weights: Weights = "signed"
    normalise: Normalise = True

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        case.layer(self.layer)

    def run(self, case: Case) -> Explanation:
        """A heat map at image size, and the weight of each channel."""
        name = case.layer(self.layer)
        activation, gradient = case.activations(name)
        space = tuple(range(2, activation.ndim))
        alpha = gradient.mean(space)[0]
        alpha = {"signed": alpha, "absolute": alpha.abs(), "positive": alpha.relu()}[self.weights]
        summed = torch.einsum("k,k...->...", alpha, activation[0])[None, None]
        cam = case.at_image(summed).clip(min=0)
        top = float(cam.max())
        if self.normalise and top > 0:
            cam = cam / top
        unit = "share of the maximum" if self.normalise else case.target.value
        order = alpha.abs().argsort(descending=True)[:20].tolist()
        weights = [float(alpha[k]) for k in order]
        text = (
            f"Seg-Grad-CAM of {case.target.name} at layer {name} ({activation.shape[1]} channels, "
            f"{'×'.join(map(str, activation.shape[2:]))}); the maximum before scaling is {top:.4g}."
        )
        table = Table("channel weights", {"channel": order, "weight": weights})
        figure = Figure("channel weights", "bar", order, {"weight": weights}, "channel", "weight")
        return Explanation((Layer("Seg-Grad-CAM", "heat", cam, unit),), (table,), (figure,), text)
