"""Seg-XGrad-CAM: a layer's channels, weighted by the target's gradient where they answer."""

from torch import Tensor

from seglens.core.method import Fidelity
from seglens.methods.gradient._cams import CAM, below_zero


class SegXGradCAM(CAM):
    """Weights are means of the gradient over places, each counted as much as the channel answers there."""

    title = "Seg-XGrad-CAM"
    cite = "gizzini2023"
    survey = (94,)
    fidelity = Fidelity.EXACT

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Σ_p g |A| / Σ_p |A| (K,), 0 for a channel that never answers.

        The published Σ g A / Σ A is the same where no answer is below zero; elsewhere its denominator may vanish or
        turn the sign of a weight.
        """
        size = activation.flatten(1).abs()
        total = size.sum(1)
        return (gradient.flatten(1) * size).sum(1) / total.where(total > 0, 1)

    def remark(self, activation: Tensor, gradient: Tensor) -> str:
        """Where the formula had to be bent."""
        return below_zero(activation, "places were counted by the size of the answer")
