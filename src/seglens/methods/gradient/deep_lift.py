"""DeepLift: what the difference from a baseline image does, operation by operation, to the target."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.rules import Rescale, summed
from seglens.methods.gradient._paths import Start, check_start, completeness, start, start_named, warn_of_rules
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers
from seglens.models.device import fine_sum


class DeepLift(Method):
    """Multipliers Δanswer/Δinput instead of derivatives (the rescale rule); they add up to the change of the target."""

    title = "DeepLift"
    cite = "shrikumar2017"
    survey = (183,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})
    takes = frozenset({Need.REFERENCE})

    fill: Start = "mean"
    show: Show = "signed"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise BadParameter for several references or a fill that needs units, ImageMismatch for another size."""
        check_start(case, self.fill)

    def run(self, case: Case) -> Explanation:
        """The map, and what it adds up to beside the change of the score."""
        baseline = start(case, self.fill)
        flow, _, score = summed(case, Rescale(), baseline)
        values = flow.values * (case.x - baseline)
        total = float(fine_sum(values))
        table, told = completeness(case, total, score, start_named(case, self.fill))
        warn_of_rules(case, total, score)
        layers = input_layers(case, "DeepLift", values, self.show, case.target.value, self.channels)
        text = f"DeepLift of {case.target.name} over {plural(case.target.pixels, 'pixel')}. {told}"
        return Explanation(layers, (table, *channel_table(case, values)), text=text)
