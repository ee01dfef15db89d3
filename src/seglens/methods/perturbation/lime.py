"""LIME: the weight of each unit in a linear model of the target near the image."""

import math
from typing import Annotated

import torch
from torch import Tensor

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Method
from seglens.core.param import FillName, Param, Units
from seglens.engine import units as parts
from seglens.engine.case import Case
from seglens.engine.perturb import Mixed
from seglens.methods.perturbation._estimators import fit, nearness
from seglens.methods.perturbation._shared import unit_bars, unit_layers, unit_table

REFITS = 5
TRUSTED = 0.5  # weighted R² below which a linear model says nothing
Pieces = Annotated[int, Param("About how many superpixels or cells of the grid.", ge=2, le=4096, quick=100)]
Samples = Annotated[int, Param("How many perturbed copies to score.", ge=8, le=1_000_000, quick=300)]
Fill = Annotated[
    FillName,
    Param("What covers a unit; its own mean, the usual choice, leaves an even colour as it is.", quick="mean"),
]
Width = Annotated[float, Param("Width of the kernel: how near to the image a copy must be to count.", gt=0, le=10)]
Ridge = Annotated[float, Param("Strength of the ridge that keeps weights small.", ge=0, le=1e6)]


class Lime(Method):
    """A ridge regression of the target on which units are kept, weighted by nearness to the image."""

    title = "LIME"
    cite = "ribeiro2016"
    survey = (28,)
    fidelity = Fidelity.EXACT

    units: Units = "superpixels"
    pieces: Pieces = 60
    fill: Fill = "unit-mean"
    samples: Samples = 1000
    kernel_width: Width = 0.25
    ridge: Ridge = 1.0

    def passes(self, case: Case) -> tuple[float, int]:
        """One per sample."""
        units = case.units(self.units, self.pieces)
        return case.passes(self._copies(case, units, self._design(case, len(units))))

    def run(self, case: Case) -> Explanation:
        """A signed map of weights (positive: the unit speaks for the class), the units, and how well the line fits."""
        units = case.units(self.units, self.pieces)
        design = self._design(case, len(units))
        copies = self._copies(case, units, design)
        scores = torch.full((len(design),), torch.nan, dtype=torch.float64)
        for which, made in case.score_steps(copies, "samples"):
            scores[which] = made
            case.run.partial(lambda: self._answer(case, units, copies.fill, design, scores))
        return self._answer(case, units, copies.fill, design, scores)

    def _design(self, case: Case, units: int) -> Tensor:
        """Which units are kept (N, M): the whole image first, then by the toss of a coin."""
        design = torch.randint(2, (self.samples, units), generator=case.generator()).double()
        design[0] = 1
        return design

    def _copies(self, case: Case, units: parts.Units, design: Tensor) -> Mixed:
        return Mixed(case.x, case.fill(self.fill, units=units), units.masks(design))

    def _answer(self, case: Case, units: parts.Units, fill: Tensor, design: Tensor, scores: Tensor) -> Explanation:
        known = ~scores.isnan()
        design, scores = design[known], scores[known]
        weights = nearness(design, self.kernel_width)
        coefficients, r2 = fit(design, scores, weights, self.ridge)
        deviation = self._refits(case, design, scores, weights)
        value = f"change of {case.target.value}"
        layers = unit_layers(case, units, coefficients, "LIME", fill, value)
        if units.spatial:
            layers += (Layer("standard deviation", "heat", units.spread(deviation).numpy(), value),)
        table = unit_table("weights", units, {"weight": coefficients.tolist(), "deviation": deviation.tolist()})
        bars = unit_bars("weights", units, {"weight": coefficients, "deviation": deviation}, value)
        text = (
            f"LIME of {case.target.name}: {len(scores)} samples of {len(units)} {units.kind} filled with {self.fill}. "
            f"{_verdict(r2, weights, len(units))} Weights move by {float(deviation.mean()):.2g} between "
            f"{REFITS} refits, the largest is {float(coefficients.abs().max()):.4g}."
        )
        if self.fill == "unit-mean" and units.spatial:
            text += " A unit's own mean leaves an even colour as it is: where colour may matter, ask again with mean."
        return Explanation(layers, (table,), (bars,), text)

    def _refits(self, case: Case, design: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
        """Deviation of each coefficient over fits to samples drawn again from those that were scored."""
        draws = torch.randint(len(scores), (REFITS, len(scores)), generator=case.generator())
        return torch.stack([fit(design[d], scores[d], weights[d], self.ridge)[0] for d in draws]).std(0)


def _verdict(r2: float, weights: Tensor, units: int) -> str:
    if math.isnan(r2):
        return "Nothing that was taken away changes the target."
    near = float(weights.sum() ** 2 / weights.square().sum())
    if near < 3 * units:
        return f"About {near:.0f} samples count, too few for {units} units: take more, or trust nothing here."
    if r2 < TRUSTED:
        return f"The linear model does not fit (weighted R² {r2:.2f}): do not trust its weights."
    return f"The linear model fits with a weighted R² of {r2:.2f}."
