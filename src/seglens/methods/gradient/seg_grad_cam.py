"""Seg-Grad-CAM: a layer's channels, weighted by how much the target asks for each of them."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Need
from seglens.core.param import Normalise
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod, activation_map, cam_layer, strongest
from seglens.methods.gradient._shared import Weights


class SegGradCAM(LayerMethod):
    """Weights are the spatial mean of the target's gradient at a layer; the weighted sum is rectified."""

    title = "Seg-Grad-CAM"
    cite = "vinogradova2020"
    survey = (16,)
    fidelity = Fidelity.EXACT
    needs = frozenset({Need.GRADIENT, Need.LAYER})

    weights: Weights = "signed"
    normalise: Normalise = True

    def run(self, case: Case) -> Explanation:
        """A heat map at image size, and the weight of each channel."""
        name = case.layer(self.layer)
        activation, gradient = case.activations(name)
        alpha = gradient.mean(tuple(range(2, gradient.ndim)))[0]
        alpha = {"signed": alpha, "absolute": alpha.abs(), "positive": alpha.relu()}[self.weights]
        cam = activation_map(case, activation, alpha)
        table, bars = strongest({"weight": alpha}, "channel weights", "channel weights")
        text = (
            f"Seg-Grad-CAM of {case.target.name} at layer {name} ({activation.shape[1]} channels, "
            f"{'×'.join(map(str, activation.shape[2:]))}); the maximum before scaling is {float(cam.max()):.4g}."
        )
        layer = cam_layer(self.title, cam, self.normalise, case.target.value)
        return Explanation((layer,), (table,), (bars,), text)
