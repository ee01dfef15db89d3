"""Region replacement: take the object away, look at what the model draws then."""

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Method, Scope
from seglens.core.param import Fill, Param
from seglens.engine import masks
from seglens.engine.case import Case
from seglens.engine.units import one_unit

Dilate = Annotated[int, Param("Grow the region by this much before it is replaced.", ge=0, le=256, unit="px")]
Feather = Annotated[float, Param("Width of the soft edge of the replaced patch.", ge=0, le=64, unit="px")]


class RegionReplacement(Method):
    """Fill the region with the mean of the rest of the image and compare the masks.

    A flat patch is itself an object, so the same patch is also put where the class is not: what it changes
    there is due to the patch.
    """

    title = "Region replacement"
    cite = "survey-77"
    survey = (77,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    locates = False

    fill: Fill = "rest-mean"
    dilate: Dilate = 0
    feather: Feather = 0.0

    def run(self, case: Case) -> Explanation:
        """The edited image, the mask after, what changed, and numbers per class and object."""
        region, index, before = case.target.region, case.target.index, case.labels
        patch = ndimage.binary_dilation(region, iterations=self.dilate) if self.dilate else region
        if patch.all():
            raise NoSuchRegion(
                "The region is the whole image, so nothing is left to fill it with.", fix="Choose a smaller region."
            )
        edited, after = self._replace(case, patch)
        labels = case.classes(after)[0]
        lost = (case.logits.softmax(1) - after.softmax(1))[0, index].cpu().numpy()
        layers = (
            Layer("edited image", "image", case.intensities(edited), rgb=edited.shape[1] == 3),
            Layer("mask after", "labels", labels),
            Layer("changed pixels", "labels", (labels != before).astype(np.uint8)),
            Layer("probability lost", "signed", lost, f"probability of {case.target.name}"),
        )
        objects = masks.object_table(before, labels, patch, case.model.spec)
        text = (
            f"With the region filled by {self.fill}, {masks.outcome(before, labels, region, index, case.target.name)} "
            f"{masks.changes(objects)} {self._control(case, patch)}"
        )
        return Explanation(layers, (masks.class_table(before, labels, case.model.spec), objects), text=text)

    def _replace(self, case: Case, patch: NDArray[Any]) -> tuple[Tensor, Tensor]:
        where = torch.from_numpy(patch).to(case.x.device)
        soft = where.to(case.x)
        if self.feather:
            blurred = ndimage.gaussian_filter(patch.astype(np.float32), self.feather)
            # inside the region the old pixels must be gone, so the edge softens outwards only
            soft = torch.from_numpy(np.where(patch, 1, blurred)).to(case.x)
        edited = soft * case.fill(self.fill, without=where, units=one_unit(where)) + (1 - soft) * case.x
        return edited, case.forward(edited)

    def _control(self, case: Case, patch: NDArray[Any]) -> str:
        spot = masks.aside(patch, case.labels == case.target.index)
        if spot is None:
            return "There is no room for the same patch elsewhere as a control."
        _, after = self._replace(case, spot)
        changed = int((case.classes(after)[0] != case.labels).sum())
        return f"The same patch away from the class changes {changed} pixels (control)."
