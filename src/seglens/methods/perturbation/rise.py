"""RISE: how the target goes with what random soft masks leave visible."""

from typing import Annotated, Literal

from seglens.core.explanation import Explanation, Figure, Layer
from seglens.core.method import Fidelity, Method
from seglens.core.param import Fill, Param
from seglens.engine.case import Case
from seglens.engine.perturb import Mixed
from seglens.methods.perturbation._designs import GridMasks
from seglens.methods.perturbation._estimators import Course

Cells = Annotated[int, Param("Cells of the coarse grid along each axis.", ge=2, le=64, quick=5)]
Keep = Annotated[float, Param("How likely a cell stays visible.", gt=0, lt=1, step=0.05)]
Samples = Annotated[int, Param("How many masks to score at most.", ge=8, le=1_000_000, quick=300)]
Form = Annotated[
    Literal["centred", "original"],
    Param("Centred: covariance of target and mask, which needs fewer masks; original: their mean product."),
]
Stop = Annotated[
    float | None,
    Param(
        "Enough, when the maps of two halves of the masks agree by this rank correlation.",
        gt=0,
        lt=1,
        step=0.01,
        empty="all masks",
    ),
]


class Rise(Method):
    """Per pixel the slope of the target over the mask there, with its standard error."""

    title = "RISE"
    cite = "petsiuk2018"
    survey = (30, 87)
    fidelity = Fidelity.EXACT

    samples: Samples = 1000
    cells: Cells = 7
    keep: Keep = 0.5
    fill: Fill = "mean"
    form: Form = "centred"
    stop: Stop = 0.95

    def passes(self, case: Case) -> tuple[float, int]:
        """One per mask; fewer if the halves agree earlier."""
        return case.passes(self._copies(case, self._masks(case)))

    def run(self, case: Case) -> Explanation:
        """A signed map (positive: seeing this raises the target), its standard error, the way it settled."""
        masks = self._masks(case)
        keep, zero = (None, case.clean_score) if self.form == "centred" else (self.keep, 0.0)
        course = Course(masks, keep, zero)
        for which, scores in case.score_steps(self._copies(case, masks), "masks"):
            for agreement in course.feed(which, scores):
                if self.stop is not None and agreement > self.stop:
                    return self._answer(case, course)
                case.run.partial(lambda: self._answer(case, course))
        return self._answer(case, course)

    def _masks(self, case: Case) -> GridMasks:
        return GridMasks.over(case, self.cells, self.keep, self.samples)

    def _copies(self, case: Case, masks: GridMasks) -> Mixed:
        return Mixed(case.x, case.fill(self.fill), masks)

    def _answer(self, case: Case, course: Course) -> Explanation:
        values, error = course.map()
        value = case.target.value
        layers = (
            Layer("RISE", "signed", case.paste(values).float().numpy(), f"change of {value}"),
            Layer("standard error", "heat", case.paste(error).float().numpy(), f"change of {value}"),
        )
        curves = {"rank correlation of the halves": course.agreement, "standard error / largest value": course.error}
        series = {name: [*curve] for name, curve in curves.items()}  # partial answers keep theirs
        settled = Figure("convergence", "line", [*course.taken], series, "masks")
        agreement = course.agreement[-1]
        enough = self.stop is not None and agreement > self.stop
        text = (
            f"RISE of {case.target.name}: {course.n} of at most {self.samples} masks of {self.cells} cells a side, "
            f"{self.keep:.0%} of them visible, the rest filled with {self.fill}. The maps of the two halves of the "
            f"masks have a rank correlation of {agreement:.2f}{', which is enough' if enough else ''}. On average "
            f"the standard error is {course.error[-1]:.0%} of the largest value."
        )
        if not values.any():
            text += " No mask moved the target: the map is zero."
        elif self.stop is not None and not enough:
            text += f" That is below {self.stop:g}: take more masks before you trust faint parts of the map."
        return Explanation(layers, figures=(settled,), text=text)
