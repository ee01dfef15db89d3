"""HiResCAM: a layer's answers times the target's gradient, place by place."""

from torch import Tensor

from seglens.core.method import Fidelity
from seglens.methods.gradient._cams import CAM


class HiResCAM(CAM):
    """The share of each place in the score, to first order; with sign, and never where the target cannot see.

    Exact where what follows the layer is linear: then the map adds up to the score but for the biases. Elsewhere it
    is as faithful as the gradient is.
    """

    title = "HiResCAM"
    cite = "draelos2020"
    survey = (93, 94)
    fidelity = Fidelity.EXACT
    rectified = False

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The gradient itself (K, *s)."""
        return gradient

    def remark(self, activation: Tensor, gradient: Tensor) -> str:
        """What the map adds up to."""
        return f"At the layer's own resolution it adds up to {float((activation * gradient).sum()):.4g}."
