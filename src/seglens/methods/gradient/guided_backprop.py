"""Guided backpropagation: the gradient, of which each ReLU hands on only what speaks for the target."""

from typing import ClassVar, Literal

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.rules import Backprop, Trace
from seglens.methods.gradient._rules import declared
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers

NOTHING = "all zero, as nothing that speaks for it comes back to the image."


class GuidedBackprop(Method):
    """One forward and one backward pass; ReLUs are found among operations, however the network writes them."""

    title = "Guided backpropagation"
    cite = "springenberg2015"
    survey = (126, 172)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})
    kind: ClassVar[Literal["guided", "deconvolution"]] = "guided"

    show: Show = "magnitude"
    channels: EachChannel = False

    def run(self, case: Case) -> Explanation:
        """One map; it has a unit of its own, since what is handed on is no derivative any more."""
        trace = Trace(case, Backprop(self.kind))
        values = trace.back().values
        layers = input_layers(case, self.title.lower(), values, self.show, f"{self.kind} signal", self.channels)
        told = NOTHING
        if bool(values.any()):
            told = "sharp, but drawn to edges whatever the weights are; believe it where another method agrees."
        text = f"{self.title} of {case.target.name} over {plural(case.target.pixels, 'pixel')}: {told}{declared(trace)}"
        return Explanation(layers, channel_table(case, values), text=text)
