"""Occlusion: cover a window, see how much the target drops, move on."""

from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Fidelity, Method, Scope
from seglens.core.param import Fill, Param, Stride, Window
from seglens.engine.case import Case
from seglens.engine.perturb import Box, Covered, spread, windows

Where = Annotated[
    Literal["whole", "context", "object"],
    Param("Cover anything, only windows that leave the region alone, or only pixels of the region."),
]
Scale = Annotated[
    Literal["none", "min-max", "z-score"],
    Param("How the map is scaled; metric targets such as dice barely move and may need it."),
]


class Occlusion(Method):
    """Per pixel the mean drop of the target over the windows that cover it (card A1)."""

    title = "Occlusion"
    cite = "zeiler2014"
    survey = (27, 88, 146)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    exact_zero_outside_reach = True

    window: Window = None
    stride: Stride = None
    fill: Fill = "mean"
    where: Where = "whole"
    scale: Scale = "none"

    def run(self, case: Case) -> Explanation:
        """A signed map (positive: the target needs these pixels), the window that hurts most, raw drops."""
        boxes, only = self._boxes(case)
        covered = Covered(case.x, case.fill(self.fill), boxes, only)
        drops = case.clean_score - case.scores(covered, "windows").double()
        drops_map = self._map(boxes, drops, only, case)
        worst = int(drops.argmax())
        worst_box = np.zeros(case.shape, np.uint8)
        worst_box[boxes[worst]] = 1
        layers = (
            Layer("occlusion", "signed", drops_map, f"drop of {case.target.value}"),
            Layer("most needed window", "labels", worst_box),
        )
        text = (
            f"Occlusion of {case.target.name}: {len(boxes)} windows filled with {self.fill}. The score "
            f"{case.clean_score:.4g} drops most, by {float(drops[worst]):.4g}, at {_corner(boxes[worst])}."
        )
        return Explanation(layers, (_table(boxes, drops),), text=text)

    def _boxes(self, case: Case) -> tuple[list[Box], Tensor | None]:
        size = self.window or max(4, min(case.shape) // 16)
        size = min(size, min(case.shape))
        boxes = windows(case.shape, size, self.stride or max(1, size // 2))
        region = case.target.region
        if self.where == "context":
            boxes = [box for box in boxes if not region[box].any()]
        elif self.where == "object":
            boxes = [box for box in boxes if region[box].any()]
        if not boxes:
            raise NoSuchRegion(
                f"No window of {size} pixels lies outside the region to explain.",
                fix="Use a smaller --window, or --where whole.",
            )
        only = torch.from_numpy(region).to(case.x.device) if self.where == "object" else None
        return boxes, only

    def _map(self, boxes: list[Box], drops: Tensor, only: Tensor | None, case: Case) -> np.ndarray:
        values = spread(boxes, drops, case.shape)
        if only is not None:
            values = values * only.cpu()
        if self.scale == "min-max" and values.max() > values.min():
            values = (values - values.min()) / (values.max() - values.min())
        elif self.scale == "z-score" and values.std() > 0:
            values = (values - values.mean()) / values.std()
        return values.numpy()


def _corner(box: Box) -> str:
    return ", ".join(f"{s.start}-{s.stop}" for s in box)


def _table(boxes: list[Box], drops: Tensor) -> Table:
    axes = "ZYX"[-len(boxes[0]) :]
    columns: dict[str, list[float]] = {f"{a} start": [b[i].start for b in boxes] for i, a in enumerate(axes)}
    columns |= {f"{a} stop": [b[i].stop for b in boxes] for i, a in enumerate(axes)}
    return Table("drops", {**columns, "drop": drops.tolist()})
