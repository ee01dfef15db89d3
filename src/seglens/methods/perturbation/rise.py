"""RISE: how the target goes with what random soft masks leave visible."""

from typing import Annotated, Literal

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity
from seglens.core.param import Fill, Param
from seglens.engine.case import Case
from seglens.engine.perturb import Mixed
from seglens.engine.scored import ScoredCopies
from seglens.methods.perturbation._designs import GridMasks
from seglens.methods.perturbation._estimators import HalvesCourse
from seglens.methods.perturbation._shared import Agreement, pixel_layers

Cells = Annotated[int, Param("Cells of the coarse grid along each axis.", ge=2, le=64, quick=5)]
Keep = Annotated[float, Param("How likely a cell stays visible.", gt=0, lt=1, step=0.05)]
Samples = Annotated[int, Param("How many masks to score at most.", ge=8, le=1_000_000, quick=300)]
Form = Annotated[
    Literal["centred", "original"],
    Param("Centred: covariance of target and mask, which needs fewer masks; original: their mean product."),
]


class Rise(ScoredCopies):
    """Per pixel the slope of the target over the mask there, with its standard error."""

    title = "RISE"
    cite = "petsiuk2018"
    survey = (30, 87)
    fidelity = Fidelity.EXACT
    counted = "masks"

    samples: Samples = 1000
    cells: Cells = 7
    keep: Keep = 0.5
    fill: Fill = "mean"
    form: Form = "centred"
    stop: Agreement = 0.95

    def copies(self, case: Case) -> Mixed[GridMasks]:
        """One per mask."""
        return Mixed(case.x, case.fill(self.fill), GridMasks.over(case, self.cells, self.keep, self.samples))

    def course(self, case: Case, copies: Mixed[GridMasks]) -> HalvesCourse:
        """Cov(F, m) / Var(m) per pixel, or the mean of F m / p: for two halves of the masks, until their maps agree."""
        keep, zero = (None, case.clean_score) if self.form == "centred" else (self.keep, 0.0)
        return HalvesCourse(copies.masks, keep, zero, self.stop)

    def answer(self, case: Case, copies: Mixed[GridMasks], course: HalvesCourse) -> Explanation:
        """A signed map (positive: seeing this raises the target), its standard error, the way it settled."""
        values, error = course.map()
        layers = pixel_layers(case, {"RISE": values, "standard error": error}, f"change of {case.target.value}")
        text = (
            f"RISE of {case.target.name}: {course.n} of at most {self.samples} masks of {self.cells} cells a side, "
            f"{self.keep:.0%} of them visible, the rest filled with {self.fill}. {course.verdict()}"
        )
        return Explanation(layers, figures=(course.figure(),), text=text)
