"""Seg-Layer-CAM: a layer's answers, each place weighted by how much the target asks for more there."""

from torch import Tensor

from seglens.core.method import Fidelity
from seglens.methods.gradient._cams import CAM


class SegLayerCAM(CAM):
    """Weights are the positive gradient of each channel at each place, so that fine layers make fine maps."""

    title = "Seg-Layer-CAM"
    cite = "jiang2021"
    survey = (94,)
    fidelity = Fidelity.EXACT

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """What of the gradient is positive (K, *s)."""
        return gradient.relu()
