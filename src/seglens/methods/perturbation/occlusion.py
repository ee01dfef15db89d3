"""Occlusion: cover a window, see how much the target drops, move on."""

import numpy as np
import torch

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Method, Scope
from seglens.core.param import Fill, Stride, Window
from seglens.engine.case import Case
from seglens.engine.perturb import Covered, box_table, rescaled, spread, told
from seglens.methods.perturbation._shared import Scale, Where, placed


class Occlusion(Method):
    """Per pixel the mean drop of the target over the windows that cover it."""

    title = "Occlusion"
    cite = "zeiler2014"
    survey = (27, 88, 146)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION

    window: Window = None
    stride: Stride = None
    fill: Fill = "mean"
    where: Where = "whole"
    scale: Scale = "none"

    def passes(self, case: Case) -> tuple[float, int]:
        """As many as the windows need that cannot share one."""
        return case.passes(self._copies(case))

    def run(self, case: Case) -> Explanation:
        """A signed map (positive: the target needs these pixels), the window that hurts most, raw drops."""
        copies = self._copies(case)
        drops = torch.zeros(len(copies), dtype=torch.float64)
        for which, scores in case.score_steps(copies, "windows"):
            drops[which] = case.clean_score - scores
            case.run.partial(lambda: self._answer(case, copies, drops))
        return self._answer(case, copies, drops)

    def _copies(self, case: Case) -> Covered:
        boxes = placed(case, self.window, self.stride, self.where)
        only = torch.from_numpy(case.target.region).to(case.x.device) if self.where == "object" else None
        return case.cover(boxes, self.fill, only)

    def _answer(self, case: Case, copies: Covered, drops: torch.Tensor) -> Explanation:
        boxes = copies.windows
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
            f"Occlusion of {case.target.name}: {len(boxes)} windows filled with {self.fill}. The score "
            f"{case.clean_score:.4g} drops most, by {float(drops.max()):.4g}, at {told(worst)}."
        )
        return Explanation(layers, (box_table("drops", boxes, {"drop": drops.tolist()}),), text=text)
