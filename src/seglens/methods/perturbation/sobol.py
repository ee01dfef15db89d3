"""Sobol indices: the share of the target's variance that each cell is part of, interactions included."""

from typing import Annotated, Literal

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity
from seglens.core.param import Fill, Param
from seglens.engine.case import Case
from seglens.engine.scored import ScoredCopies, Scores
from seglens.methods.perturbation._designs import Exchanged
from seglens.methods.perturbation._estimators import shares
from seglens.methods.perturbation._shared import UnitCopies, unit_bars, unit_table

Cells = Annotated[int | None, Param("About how many cells along each axis.", ge=2, le=32, empty="8, in volumes 4")]
Points = Annotated[
    Literal[4, 8, 16, 32, 64, 128, 256, 512, 1024],
    Param("Points of the Sobol sequence; each costs one evaluation per cell and two more.", quick=8),
]


class Sobol(ScoredCopies):
    """Total-order indices by Jansen's estimator on a scrambled Sobol sequence."""

    title = "Sobol indices"
    cite = "fel2021"
    survey = (187, 186)
    fidelity = Fidelity.EXACT

    cells: Cells = None
    points: Points = 32
    fill: Fill = "mean"

    def copies(self, case: Case) -> UnitCopies[Exchanged]:
        """Per point two halves of the sequence, and the first with each cell in turn from the second."""
        units = case.units("grid", (self.cells or {2: 8, 3: 4}[len(case.shape)]) ** len(case.shape))
        masks = Exchanged.sobol(units, self.points, case.generator())
        return UnitCopies(case.x, case.fill(self.fill), masks, units)

    def answer(self, case: Case, copies: UnitCopies[Exchanged], course: Scores) -> Explanation:
        """A heat map of total shares (no sign), the cells with their first-order shares."""
        units = copies.units
        by_point = copies.masks.by_point(course.values)
        found = shares(by_point)
        layer = Layer("total share of variance", "heat", units.spread(found.total).numpy(), "share of variance")
        columns = {"total share": found.total, "standard error": found.error, "first-order share": found.first}
        bars = unit_bars("top cells", units, columns, "share of variance")
        text = f"Sobol indices of {case.target.name}: {len(by_point)} points, {len(units)} cells faded to {self.fill}. "
        if not found.total.any():
            text += "The target is insensitive: no fading of cells changes it, and the map is zero."
        else:
            most, whole = int(found.total.argmax()), float(found.total.sum())
            together = ": cells act together" if whole - 1 > 2 * found.sum_error else ""
            text += (
                f"The largest total share is {float(found.total[most]):.2f} ± {float(found.error[most]):.2f}; all add "
                f"up to {whole:.2f} ± {found.sum_error:.2f}{together}. A share has no sign: it does not say whether a "
                "cell speaks for or against the class."
            )
        return Explanation((layer,), (unit_table("cells", units, columns),), (bars,), text)
