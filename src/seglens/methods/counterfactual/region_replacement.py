"""Region replacement: take the object away, look at what the model draws then."""

from typing import Annotated, Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Fidelity, Method, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.target import objects

Filling = Annotated[
    Literal["rest-mean", "mean", "blur", "noise", "black", "grey", "white"],
    Param("What replaces the region: rest-mean is the mean of all other pixels."),
]
Dilate = Annotated[int, Param("Grow the region by this much before it is replaced.", ge=0, le=256, unit="px")]
Feather = Annotated[float, Param("Width of the soft edge of the replaced patch.", ge=0, le=64, unit="px")]


class RegionReplacement(Method):
    """Fill the region with the mean of the rest of the image and compare the masks (card C2).

    A flat patch is itself an object, so the same patch is also put where the class is not: what it changes
    there is due to the patch.
    """

    title = "Region replacement"
    cite = "survey-77"
    survey = (77,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    locates = False

    fill: Filling = "rest-mean"
    dilate: Dilate = 0
    feather: Feather = 0.0

    def run(self, case: Case) -> Explanation:
        """The edited image, the mask after, what changed, and numbers per class and object."""
        region = case.target.region
        patch = ndimage.binary_dilation(region, iterations=self.dilate) if self.dilate else region
        if patch.all():
            raise NoSuchRegion(
                "The region is the whole image, so nothing is left to fill it with.", fix="Choose a smaller region."
            )
        edited, after = self._replace(case, patch)
        control = self._control(case, patch)
        before, labels = case.labels, case.classes(after)[0]
        drop = (case.logits.softmax(1) - after.softmax(1))[0, case.target.index].cpu().numpy()
        residual, spill = _outcome(before, labels, region, case.target.index)
        layers = (
            Layer("edited image", "image", case.intensities(edited), rgb=edited.shape[1] == 3),
            Layer("mask after", "labels", labels),
            Layer("changed pixels", "labels", (labels != before).astype(np.uint8)),
            Layer("probability lost", "signed", drop.astype(np.float32), f"probability of {case.target.name}"),
        )
        text = (
            f"With the region filled by {self.fill}, {residual:.0%} of it is still {case.target.name} and "
            f"{spill} new pixels of it appear elsewhere. {control}"
        )
        return Explanation(layers, (_classes(case, labels), _instances(before, labels, patch)), text=text)

    def _replace(self, case: Case, patch: np.ndarray) -> tuple[Tensor, Tensor]:
        where = torch.from_numpy(patch).to(case.x.device)
        soft = where.to(case.x)
        if self.feather:
            blurred = ndimage.gaussian_filter(patch.astype(np.float32), self.feather)
            # inside the region the old pixels must be gone, so the edge softens outwards only
            soft = torch.from_numpy(np.where(patch, 1, blurred)).to(case.x)
        edited = soft * case.fill(self.fill, without=where) + (1 - soft) * case.x
        return edited, case.forward(edited)

    def _control(self, case: Case, patch: np.ndarray) -> str:
        spot = _elsewhere(patch, case.labels == case.target.index)
        if spot is None:
            return "There is no room for the same patch elsewhere as a control."
        _, after = self._replace(case, spot)
        changed = int((case.classes(after)[0] != case.labels).sum())
        return f"The same patch away from the class changes {changed} pixels (control)."


def _outcome(before: np.ndarray, after: np.ndarray, region: np.ndarray, index: int) -> tuple[float, int]:
    residual = float((after[region] == index).mean())
    spill = int(((after == index) & (before != index) & ~region).sum())
    return residual, spill


def _elsewhere(patch: np.ndarray, taken: np.ndarray) -> np.ndarray | None:
    """The patch moved to where it touches neither itself nor the class; the furthest such place."""
    box = ndimage.find_objects(patch.astype(np.uint8))[0]
    shape = patch[box]
    free = ndimage.distance_transform_edt(np.pad(~(taken | patch), 1))[tuple([slice(1, -1)] * patch.ndim)]
    # the centre must fit the whole box, so its borders are no candidates
    for axis, size in enumerate(shape.shape):
        edge = np.arange(patch.shape[axis])
        outside = (edge < size // 2) | (edge > patch.shape[axis] - (size - size // 2))
        free[(slice(None),) * axis + (outside,)] = 0
    if free.max() == 0:
        return None
    centre = np.unravel_index(int(free.argmax()), free.shape)
    start = [c - s // 2 for c, s in zip(centre, shape.shape, strict=True)]
    moved = np.zeros_like(patch)
    moved[tuple(slice(s, s + n) for s, n in zip(start, shape.shape, strict=True))] = shape
    return None if (moved & (taken | patch)).any() else moved


def _classes(case: Case, after: np.ndarray) -> Table:
    before, rows = case.labels, []
    for index, spec in enumerate(case.model.spec.classes):
        a, b = before == index, after == index
        both = int(a.sum() + b.sum())
        rows.append((spec.name, int(a.sum()), int(b.sum()), 2 * int((a & b).sum()) / both if both else float("nan")))
    names = ("class", "pixels before", "pixels after", "Dice of before and after")
    return Table("classes", {n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)})


def _instances(before: np.ndarray, after: np.ndarray, patch: np.ndarray) -> Table:
    numbered = objects(before)
    numbers = np.unique(numbered[numbered > 0])
    kept = ndimage.mean(before == after, numbered, numbers) if len(numbers) else []
    touched = ndimage.maximum(patch, numbered, numbers) if len(numbers) else []
    columns = {
        "object": numbers.tolist(),
        "replaced": [bool(t) for t in touched],
        "share of pixels with the same class": [float(k) for k in kept],
    }
    return Table("objects", columns)
