"""Seg-Grad-CAM++: a layer's channels, weighted by where the target asks for them, small places as much as large."""

from torch import Tensor

from seglens.core.method import Fidelity
from seglens.methods.gradient._cams import CAM, below_zero, plus_plus


class SegGradCAMPlusPlus(CAM):
    """Weights are sums of the positive gradient, each place divided by how much of the channel there is.

    The division comes from an exponential of the score (card B/B12), so the weights change with the reduction of the
    target: of a mean over many pixels they are half the positive gradient.
    """

    title = "Seg-Grad-CAM++"
    cite = "gizzini2023"
    survey = (94, 129)
    fidelity = Fidelity.EXACT

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """One number per channel (K,); see :func:`plus_plus`."""
        return plus_plus(activation, gradient)

    def remark(self, activation: Tensor, gradient: Tensor) -> str:
        """Where the formula had to be bent."""
        return below_zero(activation, "how much of a channel there is was counted above zero only")
