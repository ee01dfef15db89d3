"""Kernel SHAP: the fair share of each unit in the target, its Shapley value, from paired coalitions."""

from typing import Annotated

from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity
from seglens.core.param import Fill, Param, Pieces, Units
from seglens.engine.case import Case
from seglens.engine.scored import ScoredCopies
from seglens.engine.units import UnitMasks
from seglens.methods.perturbation._course import ShapleyCourse, Solver
from seglens.methods.perturbation._shapley import paired, pairs
from seglens.methods.perturbation._shared import (
    UnitCopies,
    settled,
    unit_bars,
    unit_copies,
    unit_layers,
    unit_name,
    unit_table,
)

SMALL = 12  # units of which all coalitions are scored

Samples = Annotated[
    int | None,
    Param(
        "How many coalitions to score, in pairs.",
        ge=8,
        le=8192,
        quick=256,
        empty=f"all of them up to {SMALL} units, else twice the units and 128 more, at least 256",
    ),
]
Solve = Annotated[
    Solver,
    Param(
        "A Gaussian prior on interactions needs about half the samples; least squares is the regression of the paper."
    ),
]
Tolerance = Annotated[
    float | None,
    Param(
        "Stop when the largest standard error is below this share of the sum of all values.",
        gt=0,
        le=1,
        step=0.01,
        empty="use all samples",
    ),
]


class KernelShap(ScoredCopies):
    """Shares of units that add up to the target's score less that of the image with all units replaced."""

    title = "Kernel SHAP"
    cite = "lundberg2017"
    survey = (29, 87)
    fidelity = Fidelity.EXACT
    counted = "coalitions"

    units: Units = "superpixels"
    pieces: Pieces = 64
    fill: Fill = "mean"
    samples: Samples = None
    solver: Solve = "gaussian-process"
    tolerance: Tolerance = None

    def copies(self, case: Case) -> UnitCopies[UnitMasks]:
        """The empty coalition, then pairs of one and its complement."""
        units = case.units(self.units, self.pieces)
        rows = pairs(len(units), self._count(len(units)), case.generator())
        return unit_copies(case, units, paired(rows), self.fill)

    def course(self, case: Case, copies: UnitCopies[UnitMasks]) -> ShapleyCourse:
        """Shapley values from the pairs so far, until their errors are small enough."""
        rows = copies.masks.keep[1::2].double()  # one of each pair
        return ShapleyCourse(rows, case.clean_score, self.solver, self.tolerance)

    def answer(self, case: Case, copies: UnitCopies[UnitMasks], course: ShapleyCourse) -> Explanation:
        """A signed map of shares (positive: the unit speaks for the class), their standard errors, the sum."""
        units, solved, value = copies.units, course.solve(), f"share of {case.target.value}"
        columns = {"Shapley value": solved.values, "standard error": solved.errors}
        layers = unit_layers(case, copies, columns, value)
        figures = [unit_bars("Shapley values", units, columns, value)]
        if len(course.passes) > 1:
            figures.append(settled(course.passes, {"largest standard error": course.error}, "copies scored", value))
        most = int(solved.values.abs().argmax())
        text = (
            f"Kernel SHAP of {case.target.name} over {len(units)} {units.kind} filled with {self.fill}: "
            f"sum = F(x) - F(fill) = {case.clean_score:.4g} - {case.clean_score - course.total:.4g} = "
            f"{course.total:.4g}. {course.verdict(solved.errors)} The largest share, "
            f"{float(solved.values[most]):.4g}, is that of {unit_name(units, most)}."
        )
        return Explanation(layers, (unit_table("Shapley values", units, columns),), tuple(figures), text)

    def _count(self, units: int) -> int:
        """How many pairs to score."""
        wanted = self.samples or (2**units if units <= SMALL else max(256, 2 * units + 128))
        there = 2 ** (units - 1) - 1
        count: int = min(wanted // 2, there)
        if self.solver == "least-squares" and count < min(units + 1, there):
            raise BadParameter(
                f"Least squares cannot tell {units} units apart by {wanted} samples.",
                fix=f"Use samples={2 * units + 2} or more, fewer units, or solver=gaussian-process.",
            )
        return count
