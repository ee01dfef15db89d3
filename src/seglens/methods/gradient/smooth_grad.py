"""SmoothGrad: the gradient over noisy copies of the image, as mean, mean square or variance."""

from typing import Annotated, Any, Literal

from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Layer
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.paths import Noisy
from seglens.methods.gradient._noisy import Agreement, NoisyCourse
from seglens.methods.gradient._paths import SampledGradients, Spread, placed
from seglens.methods.gradient._shared import EachChannel, Show, as_map, channel_table, input_layers

Samples = Annotated[int, Param("Noisy copies to take the gradient at.", ge=2, le=5000, quick=6)]
Form = Annotated[
    Literal["mean", "square", "variance"],
    Param("Of the gradients: mean (SmoothGrad), mean square (SmoothGrad²) or variance (VarGrad)."),
]


class SmoothGrad(SampledGradients):
    """G_i = ∂T/∂x at x + ε_i, ε ~ N(0, σ²), σ = spread · (max x − min x); the region stays that of the clean image."""

    title = "SmoothGrad"
    cite = "smilkov2017"
    survey = (42, 90)

    samples: Samples = 25
    spread: Spread = 0.15
    form: Form = "mean"
    show: Show = "magnitude"
    channels: EachChannel = False
    stop: Agreement = None

    def check(self, case: Case) -> None:
        """Raise BadParameter for squares with a sign."""
        if self.form != "mean" and self.show == "signed":
            raise BadParameter(
                f"smooth-grad: form={self.form} has no sign to show.", fix="Use show=magnitude, or form=mean."
            )

    def copies(self, case: Case) -> Noisy:
        """One per draw."""
        sigma = self.spread * float(case.x.max() - case.x.min())
        return Noisy.of(case.x, sigma, self.samples, case.run.seed)

    def course(self, case: Case, copies: Any) -> NoisyCourse:
        """Moments."""
        return NoisyCourse(self.form, self.stop)

    def answer(self, case: Case, course: Any) -> Explanation:
        """The map, the deviation of the gradients, and the way it settled."""
        moments, unit = course.moments, f"{case.target.value} per unit of normalised input"
        name = {"mean": "SmoothGrad", "square": "SmoothGrad²", "variance": "VarGrad"}[self.form]
        values = placed(case, course.values(moments), course.box)
        deviation = placed(case, course.deviation(self.show), course.box)
        layers = input_layers(
            case, name, values, self.show, unit if self.form == "mean" else f"({unit})²", self.channels
        )
        if self.form != "variance":
            layers += (Layer("standard deviation", "heat", as_map(deviation[0, 0]), unit),)
        text = (
            f"{name} of {case.target.name} over {plural(case.target.pixels, 'pixel')}, from {moments.n} copies with "
            f"noise of {self.spread:.0%} of the range. {course.told()}"
        )
        return Explanation(layers, channel_table(case, values), (course.figure(),), text)
