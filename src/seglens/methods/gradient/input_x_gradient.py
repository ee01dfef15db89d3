"""Input × gradient: each pixel's own value times how the target changes with it."""

from typing import Annotated

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import FillName, Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.methods.gradient._paths import check_start, completeness, start, start_named
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers
from seglens.models.device import fine_sum

Offset = Annotated[
    FillName | None,
    Param(
        "What counts as no input: an image filled like this. A reference image takes its place.",
        empty="zero of the normalised input",
    ),
]


class InputXGradient(Method):
    """(x − offset) ⊙ ∂T/∂x: exact for linear networks, and for ReLU networks without bias."""

    title = "Input × gradient"
    cite = "shrikumar2016"
    survey = (183,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})
    takes = frozenset({Need.REFERENCE})

    fill: Offset = None
    show: Show = "signed"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise BadParameter for several references or a fill that needs units, ImageMismatch for another size."""
        check_start(case, self.fill)

    def run(self, case: Case) -> Explanation:
        """One map in units of the target; its sum stands beside the score."""
        zero = self.fill is None and not case.reference
        offset = start(case, self.fill or "zero")
        values = (case.x - offset) * case.gradient()
        where = "zero input" if zero else start_named(case, self.fill or "zero")
        score = float(case.sampler.scores(offset)[0])
        table, told = completeness(case, float(fine_sum(values)), score, where)
        layers = input_layers(case, "input × gradient", values, self.show, case.target.value, self.channels)
        text = (
            f"Input × gradient of {case.target.name} over {plural(case.target.pixels, 'pixel')}, to first order. {told}"
        )
        return Explanation(layers, (table, *channel_table(case, values)), text=text)
