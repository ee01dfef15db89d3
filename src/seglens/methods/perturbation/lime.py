"""LIME: the weight of each unit in a linear model of the target near the image."""

import math
from typing import Annotated

import torch
from torch import Tensor

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity
from seglens.core.param import FillName, Param, Pieces, Samples, Units
from seglens.engine.case import Case
from seglens.engine.scored import ScoredCopies, Scores
from seglens.engine.units import UnitMasks
from seglens.methods.perturbation._estimators import fit, nearness, refitted
from seglens.methods.perturbation._shared import UnitCopies, unit_bars, unit_copies, unit_layers, unit_table

REFITS = 5
TRUSTED = 0.5  # weighted R² below which a linear model says nothing
Fill = Annotated[
    FillName,
    Param("What covers a unit; its own mean, the usual choice, leaves an even colour as it is.", quick="mean"),
]
Width = Annotated[float, Param("Width of the kernel: how near to the image a copy must be to count.", gt=0, le=10)]
Ridge = Annotated[float, Param("Strength of the ridge that keeps weights small.", ge=0, le=1e6)]


class Lime(ScoredCopies):
    """A ridge regression of the target on which units are kept, weighted by nearness to the image."""

    title = "LIME"
    cite = "ribeiro2016"
    survey = (28,)
    fidelity = Fidelity.EXACT
    counted = "samples"

    units: Units = "superpixels"
    pieces: Pieces = 60
    fill: Fill = "unit-mean"
    samples: Samples = 1000
    kernel_width: Width = 0.25
    ridge: Ridge = 1.0

    def copies(self, case: Case) -> UnitCopies[UnitMasks]:
        """The whole image first, then each unit kept by the toss of a coin."""
        units = case.units(self.units, self.pieces)
        design = torch.randint(2, (self.samples, len(units)), generator=case.generator())
        design[0] = 1
        return unit_copies(case, units, design, self.fill)

    def answer(self, case: Case, copies: UnitCopies[UnitMasks], course: Scores) -> Explanation:
        """A signed map of weights (positive: the unit speaks for the class), the units, and how well the line fits."""
        units, known = copies.units, ~course.values.isnan()
        design, scores = copies.masks.keep[known].double(), course.values[known]
        weights = nearness(design, self.kernel_width)
        coefficients, r2 = fit(design, scores, weights, self.ridge)
        draws = torch.randint(len(scores), (REFITS, len(scores)), generator=case.generator())
        deviation = refitted(design, scores, weights, self.ridge, draws)
        value = f"change of {case.target.value}"
        layers = unit_layers(case, copies, {"LIME": coefficients, "standard deviation": deviation}, value)
        columns = {"weight": coefficients, "deviation": deviation}
        bars = unit_bars("weights", units, columns, value)
        text = (
            f"LIME of {case.target.name}: {len(scores)} samples of {len(units)} {units.kind} filled with {self.fill}. "
            f"{_verdict(r2, weights, len(units))} Weights move by {float(deviation.mean()):.2g} between "
            f"{REFITS} refits, the largest is {float(coefficients.abs().max()):.4g}."
        )
        if self.fill == "unit-mean" and units.spatial:
            text += " A unit's own mean leaves an even colour as it is: where colour may matter, ask again with mean."
        return Explanation(layers, (unit_table("weights", units, columns),), (bars,), text)


def _verdict(r2: float, weights: Tensor, units: int) -> str:
    if math.isnan(r2):
        return "Nothing that was taken away changes the target."
    near = float(weights.sum() ** 2 / weights.square().sum())
    if near < 3 * units:
        return f"About {near:.0f} samples count, too few for {units} units: take more, or trust nothing here."
    if r2 < TRUSTED:
        return f"The linear model does not fit (weighted R² {r2:.2f}): do not trust its weights."
    return f"The linear model fits with a weighted R² of {r2:.2f}."
