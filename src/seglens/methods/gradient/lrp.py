"""LRP: the target's number shared out, layer by layer, down to the pixels."""

from typing import Annotated

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.rules import Trace, summed
from seglens.methods.gradient._rules import Composite, Gamma, composite, conservation, declared, insensitive
from seglens.methods.gradient._shared import EachChannel, Show, as_map, channel_table, input_layers

At = Annotated[str | None, Param("Also show the relevance of this layer.", source="layers", empty="none")]
CURVED = ("probability", "log-probability", "dice")  # values that are no sums of logits


class LRP(Method):
    """Layer-wise relevance propagation by rules on operations; skips keep their share, and every loss is told."""

    title = "Layer-wise relevance propagation"
    cite = "bach2015"
    survey = (117, 183, 201)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})

    composite: Composite = "epsilon-plus-flat"
    gamma: Gamma = 0.25
    at: At = None
    show: Show = "signed"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise UnknownName or MissingNeed if the layer is not there."""
        if self.at is not None:
            case.layer(self.at)

    def run(self, case: Case) -> Explanation:
        """A map in units of the target, what came to each layer and what it absorbed."""
        rules = composite(case, self.composite, self.gamma)
        if self.at is None:
            flow, trace, _ = summed(case, rules, rows=True)
        else:
            trace = Trace(case, rules)
            flow = trace.back(rows=True)
        bars, told = conservation(case, flow)
        value: str = case.target.value
        unit = value
        if value in CURVED:
            unit = f"derivative of the {value} × logit"
            told += (
                f" Shared out is the derivative of the {value} times the logits ({flow.start:.4g}), not the {value} "
                f"itself ({case.clean_score:.4g})."
            )
        layers = input_layers(case, "relevance", flow.values, self.show, unit, self.channels)
        if self.at is not None:
            inside = trace.at(self.at).sum(1, keepdim=True)
            own = tuple(inside.shape[2:])
            layers += (Layer(f"at {self.at}", "signed", as_map(trace.at_image(inside)), unit, resolution=own),)
        told += declared(trace) + insensitive(self.composite)
        text = f"LRP ({self.composite}) of {case.target.name} over {plural(case.target.pixels, 'pixel')}: {told}"
        return Explanation(layers, (flow.table(), *channel_table(case, flow.values)), (bars,), text)
