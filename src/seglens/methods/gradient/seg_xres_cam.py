"""Seg-XRes-CAM: a layer's answers times the target's gradient, the gradient pooled in windows."""

from typing import Annotated, Literal

from torch import Tensor
from torch.nn import functional as F

from seglens.core.method import Fidelity
from seglens.core.param import Param
from seglens.methods.gradient._cams import CAM

Pooled = Annotated[
    int,
    Param("Side of the windows, in pixels of the layer: 1 is HiResCAM, the layer's size Seg-Grad-CAM.", ge=1, le=4096),
]
Pooling = Annotated[Literal["mean", "max"], Param("What of the gradient in a window counts.")]


class SegXResCAM(CAM):
    """Between HiResCAM and Seg-Grad-CAM: the gradient may be a little off, yet not anywhere in the image.

    Ask about a box (only its predicted pixels count) and move it: the map moves with it.
    """

    title = "Seg-XRes-CAM"
    cite = "hasany2023"
    survey = (92,)
    fidelity = Fidelity.EXACT

    window: Pooled = 2
    pooling: Pooling = "mean"

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Each window's mean or largest gradient, at each of its places (K, *s); windows at the far end are cut."""
        window = self._sides(gradient)
        pooled = _pool(gradient[None], window, self.pooling)[0]
        for axis, (side, length) in enumerate(zip(window, gradient.shape[1:], strict=True), start=1):
            pooled = pooled.repeat_interleave(side, axis).narrow(axis, 0, length)
        return pooled

    def remark(self, activation: Tensor, gradient: Tensor) -> str:
        """The window in pixels of the layer."""
        sides = self._sides(gradient)
        if sides == [*gradient.shape[1:]]:
            return f"The gradient is the {self.pooling} over the whole layer."
        told = "×".join(map(str, sides)) if len({*sides}) > 1 else sides[0]
        return f"The gradient is the {self.pooling} of windows of {told} pixels of the layer."

    def _sides(self, gradient: Tensor) -> list[int]:
        return [min(self.window, n) for n in gradient.shape[1:]]


def _pool(values: Tensor, window: list[int], how: str) -> Tensor:
    if how == "max":
        return (F.max_pool2d if len(window) == 2 else F.max_pool3d)(values, window, ceil_mode=True)
    return (F.avg_pool2d if len(window) == 2 else F.avg_pool3d)(values, window, ceil_mode=True)
