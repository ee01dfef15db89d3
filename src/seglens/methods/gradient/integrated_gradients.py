"""Integrated gradients: the gradient along a straight path to the image, summed up, and what the sum leaves out."""

from typing import Any

from seglens.core.explanation import Explanation
from seglens.core.method import Need
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.paths import Along, nodes
from seglens.methods.gradient._paths import (
    Points,
    Rule,
    SampledGradients,
    Start,
    check_start,
    completeness,
    placed,
    start,
    start_named,
)
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers
from seglens.methods.gradient._straight import Straight


class IntegratedGradients(SampledGradients):
    """(x − x′) ⊙ ∫ ∂T/∂x at x′ + α (x − x′) dα; the region stays that of the clean image."""

    title = "Integrated gradients"
    cite = "sundararajan2017"
    survey = (126, 183)
    takes = frozenset({Need.REFERENCE})

    steps: Points = 32
    rule: Rule = "gauss-legendre"
    fill: Start = "mean"
    show: Show = "signed"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise BadParameter for several references or a fill that needs units, ImageMismatch for another size."""
        check_start(case, self.fill)

    def copies(self, case: Case) -> Along:
        """Points of the path."""
        return Along(start(case, self.fill), case.x, nodes(self.rule, self.steps)[0])

    def course(self, case: Case, copies: Any) -> Straight:
        """The integral."""
        return Straight(case, copies, nodes(self.rule, self.steps)[1])

    def answer(self, case: Case, course: Any) -> Explanation:
        """The map, what it adds up to beside the change of the score, and the score along the path."""
        values = placed(case, course.values, course.box)
        table, told = completeness(case, course.total, course.first, start_named(case, self.fill))
        course.check(self.fill)
        layers = input_layers(case, "integrated gradients", values, self.show, case.target.value, self.channels)
        text = (
            f"Integrated gradients of {case.target.name} over {plural(case.target.pixels, 'pixel')}, {course.n} "
            f"points. {told}"
        )
        return Explanation(layers, (table, *channel_table(case, values)), (course.figure(),), text)
