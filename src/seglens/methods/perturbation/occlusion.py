"""Occlusion: cover a window, see how much the target drops, move on."""

import numpy as np
import torch

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Scope
from seglens.core.param import Fill, Stride, Window
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.perturb import Covered, box_table, rescaled, spread, told
from seglens.engine.scored import Drops, ScoredCopies
from seglens.methods.perturbation._shared import Scale, Where, placed


class Occlusion(ScoredCopies):
    """Per pixel the mean drop of the target over the windows that cover it."""

    title = "Occlusion"
    cite = "zeiler2014"
    survey = (27, 88, 146)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    counted = "windows"

    window: Window = None
    stride: Stride = None
    fill: Fill = "mean"
    where: Where = "whole"
    scale: Scale = "none"

    def copies(self, case: Case) -> Covered:
        """One window covered in each."""
        boxes = placed(case, self.window, self.stride, self.where)
        only = torch.from_numpy(case.target.region).to(case.x.device) if self.where == "object" else None
        return case.cover(boxes, self.fill, only)

    def course(self, case: Case, copies: Covered) -> Drops:
        """The drop for each window."""
        return Drops(len(copies), case.clean_score)

    def answer(self, case: Case, copies: Covered, course: Drops) -> Explanation:
        """A signed map (positive: the target needs these pixels), the window that hurts most, raw drops."""
        boxes, drops, axes = copies.windows, course.values, case.model.spec.axes
        values = spread(boxes, drops, case.shape)
        values = values if copies.only is None else values * copies.only.cpu()
        worst = boxes[int(drops.argmax())]
        needed = np.zeros(case.shape, np.uint8)
        needed[worst] = 1
        layers = (
            Layer("occlusion", "signed", rescaled(values, self.scale).numpy(), f"drop of {case.target.value}"),
            Layer("most needed window", "labels", needed),
        )
        text = (
            f"Occlusion of {case.target.name}: {plural(len(boxes), 'window')} filled with {self.fill}. The score "
            f"{case.clean_score:.4g} drops most, by {float(drops.max()):.4g}, at {told(worst, axes)}."
        )
        return Explanation(layers, (box_table("drops", axes, boxes, {"drop": drops.tolist()}),), text=text)
