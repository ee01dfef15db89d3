"""Seg-Grad-CAM: a layer's channels, weighted by how much the target asks for each of them."""

from torch import Tensor

from seglens.core.method import Fidelity
from seglens.methods.gradient._cams import CAM, spatial_mean
from seglens.methods.gradient._shared import Weights


class SegGradCAM(CAM):
    """Weights are the spatial mean of the target's gradient at a layer; the weighted sum is rectified."""

    title = "Seg-Grad-CAM"
    cite = "vinogradova2020"
    survey = (16,)
    fidelity = Fidelity.EXACT

    weights: Weights = "signed"

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The mean gradient of each channel (K,), as it is, its size, or what of it is positive."""
        alpha = spatial_mean(gradient)
        return {"signed": alpha, "absolute": alpha.abs(), "positive": alpha.relu()}[self.weights]
