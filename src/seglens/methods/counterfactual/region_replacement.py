"""Region replacement: take the object away, look at what the model draws then."""

from typing import Annotated

import torch
from scipy import ndimage
from torch import Tensor

from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method
from seglens.core.param import Fill, Param
from seglens.engine import masks
from seglens.engine.case import Case
from seglens.engine.units import one_unit
from seglens.methods.counterfactual._shared import control, edited_layers, edited_tables

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
    locates = False

    fill: Fill = "rest-mean"
    dilate: Dilate = 0
    feather: Feather = 0.0

    def run(self, case: Case) -> Explanation:
        """The edited image, the mask after, what changed, and numbers per class and object."""
        region, target = case.target.region, case.target
        patch = ndimage.binary_dilation(region, iterations=self.dilate) if self.dilate else region
        if patch.all():
            raise NoSuchRegion(
                "The region is the whole image, so nothing is left to fill it with.", fix="Choose a smaller region."
            )
        edited, after = self._replace(case, patch)
        classes, objects = edited_tables(case, after, patch)
        outcome = masks.outcome(case.labels, case.classes(after)[0], region, target.index, target.name)
        told = control(case, patch, lambda spot: self._replace(case, spot)[1])
        text = f"With the region filled by {self.fill}, {outcome} {masks.changes(objects)} {told}"
        return Explanation(edited_layers(case, edited, after), (classes, objects), text=text)

    def _replace(self, case: Case, patch: masks.Mask) -> tuple[Tensor, Tensor]:
        where = torch.from_numpy(patch).to(case.x.device)
        soft = torch.from_numpy(masks.softened(patch, self.feather)).to(case.x)
        edited = soft * case.fill(self.fill, without=where, units=one_unit(where)) + (1 - soft) * case.x
        return edited, case.forward(edited)
