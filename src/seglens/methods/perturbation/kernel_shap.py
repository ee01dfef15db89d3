"""Kernel SHAP: the fair share of each unit in the target, its Shapley value, from paired coalitions."""

from typing import Annotated

from torch import Tensor

from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Figure, Layer
from seglens.core.method import Fidelity, Method
from seglens.core.param import Fill, Param, Units
from seglens.engine import units as parts
from seglens.engine.case import Case
from seglens.engine.perturb import Mixed
from seglens.methods.perturbation._course import ShapleyCourse, Solver
from seglens.methods.perturbation._shapley import pairs
from seglens.methods.perturbation._shared import unit_bars, unit_layers, unit_table

SMALL = 12  # units of which all coalitions are scored

Pieces = Annotated[int, Param("About how many superpixels or cells of the grid.", ge=2, le=4096, quick=100)]
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


class KernelShap(Method):
    """Shares of units that add up to the target's score less that of the image with all units replaced."""

    title = "Kernel SHAP"
    cite = "lundberg2017"
    survey = (29, 87)
    fidelity = Fidelity.EXACT

    units: Units = "superpixels"
    pieces: Pieces = 64
    fill: Fill = "mean"
    samples: Samples = None
    solver: Solve = "gaussian-process"
    tolerance: Tolerance = None

    def passes(self, case: Case) -> tuple[float, int]:
        """One per coalition; fewer if the tolerance is met before."""
        units = case.units(self.units, self.pieces)
        return case.passes(self._copies(case, units, self._course(case, len(units)).coalitions))

    def run(self, case: Case) -> Explanation:
        """A signed map of shares (positive: the unit speaks for the class), their standard errors, the sum."""
        units = case.units(self.units, self.pieces)
        course = self._course(case, len(units))
        copies = self._copies(case, units, course.coalitions)
        for which, scores in case.score_steps(copies, "coalitions"):
            course.feed(which, scores)
            if course.ready:
                case.run.partial(lambda: self._answer(case, units, copies.fill, course))
            if course.stopped:
                break
        return self._answer(case, units, copies.fill, course)

    def _course(self, case: Case, units: int) -> ShapleyCourse:
        wanted = self.samples or (2**units if units <= SMALL else max(256, 2 * units + 128))
        there = 2 ** (units - 1) - 1
        count = min(wanted // 2, there)
        if self.solver == "least-squares" and count < min(units + 1, there):
            raise BadParameter(
                f"Least squares cannot tell {units} units apart by {wanted} samples.",
                fix=f"Use samples={2 * units + 2} or more, fewer units, or solver=gaussian-process.",
            )
        rows = pairs(units, count, case.generator())
        return ShapleyCourse(rows, case.clean_score, self.solver, self.tolerance)

    def _copies(self, case: Case, units: parts.Units, coalitions: Tensor) -> Mixed:
        return Mixed(case.x, case.fill(self.fill, units=units), units.masks(coalitions))

    def _answer(self, case: Case, units: parts.Units, fill: Tensor, course: ShapleyCourse) -> Explanation:
        solved = course.solve()
        value = f"share of {case.target.value}"
        layers = unit_layers(case, units, solved.values, "Shapley value", fill, value)
        if units.spatial:
            layers += (Layer("standard error", "heat", units.spread(solved.errors).numpy(), value),)
        columns = {"Shapley value": solved.values, "standard error": solved.errors}
        table = unit_table("Shapley values", units, {name: column.tolist() for name, column in columns.items()})
        figures = [unit_bars("Shapley values", units, columns, value)]
        if len(course.passes) > 1:
            series = {"largest standard error": list(course.error)}
            figures.append(Figure("convergence", "line", list(course.passes), series, "copies scored", value))
        most = int(solved.values.abs().argmax())
        text = (
            f"Kernel SHAP of {case.target.name} over {len(units)} {units.kind} filled with {self.fill}: "
            f"sum = F(x) - F(fill) = {case.clean_score:.4g} - {case.clean_score - course.total:.4g} = "
            f"{course.total:.4g}. {_sure(course, solved.errors)} The largest share, "
            f"{float(solved.values[most]):.4g}, is that of {_called(units, most)}."
        )
        return Explanation(layers, (table,), tuple(figures), text)


def _called(units: parts.Units, number: int) -> str:
    """As the tables and the labels layer call it."""
    place = f"unit {number + 1}"
    if units.kind in ("objects", "labels"):
        return f"{place} ({units.kind[:-1]} {units.names[number]})"
    return units.names[number] if units.kind in ("channels", "slices") else place


def _sure(course: ShapleyCourse, errors: Tensor) -> str:
    if course.exact:
        return f"Exact: all {course.scored + 1} coalitions were scored."
    largest = float(errors.max())
    share = f", {largest / abs(course.total):.1%} of the sum" if course.total else ""
    how = "Stopped" if course.stopped else "Estimated"
    return f"{how} after {course.scored} coalitions; standard errors are at most {largest:.2g}{share}."
