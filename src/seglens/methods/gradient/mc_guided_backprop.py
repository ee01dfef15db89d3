"""MC guided backpropagation: guided maps of samples with dropout switched on, their mean, and how unsure they are."""

from typing import Annotated

import torch

from seglens.core.boxes import whole
from seglens.core.errors import MissingNeed
from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.dropping import Dropping
from seglens.engine.rules import Backprop, Trace
from seglens.methods.gradient._noisy import Moments
from seglens.methods.gradient._rules import declared
from seglens.methods.gradient._shared import Show, as_map, input_map
from seglens.models.classes import entropy, probabilities

Samples = Annotated[int, Param("Samples with dropout to take.", ge=2, le=1000, quick=4)]


class MCGuidedBackprop(Method):
    """Mean and deviation of map and probability over samples of the network, and the entropy of the mean prediction."""

    title = "MC guided backpropagation"
    cite = "wickstrom2020"
    survey = (14, 172)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT, Need.DROPOUT})
    works_on = "networks with dropout"

    samples: Samples = 20
    show: Show = "magnitude"

    def run(self, case: Case) -> Explanation:
        """Mean map and four of what is unsure; the region stays that of the clean image."""
        maps, classes, remark = Moments(), Moments(), ""
        for sample in range(self.samples):
            case.run.progress(sample, self.samples, "samples with dropout")
            # the whole image: a crop would draw other masks
            with Dropping((case.run.seed * 1_000_003 + sample) % 2**63) as dropped:
                trace = Trace(case, Backprop("guided"), box=whole(case.shape))
            if not dropped.seen:
                raise MissingNeed(
                    f"{case.model.spec.name} has no dropout that can be seen, so all samples would be the same.",
                    fix="Choose a network that was trained with dropout, or guided-backprop.",
                )
            values = trace.back().values
            maps.add(torch.cat([values, values.sum(1, keepdim=True)], 1))
            assert trace.logits is not None  # only DeepLift looks at scores alone
            classes.add(probabilities(trace.logits, case.target.overlapping))
            remark = declared(trace)
        return self._answer(case, maps, classes, remark)

    def _answer(self, case: Case, maps: Moments, classes: Moments, remark: str) -> Explanation:
        mean, deviation = maps.mean[:, :-1], maps.variance.sqrt()[0]
        shown = deviation[-1] if self.show == "signed" else deviation[:-1].amax(0)
        p, own = classes.mean, case.target.index
        unsure_of, unsteady = entropy(p, case.target.overlapping)[0], classes.variance.sqrt()[0, own]
        inside = case.target.weights != 0
        unsure = float(shown.mean() / mean.abs().amax(1).mean().clamp(min=1e-30))
        layers = (
            input_map("mean", mean, self.show, "guided signal"),
            Layer("deviation", "heat", as_map(shown), "guided signal"),
            Layer("predictive entropy", "heat", as_map(unsure_of), "nats"),
            Layer("mean probability", "heat", as_map(p[0, own]), "probability"),
            Layer("predictive deviation", "heat", as_map(unsteady), "probability"),
        )
        asked = {"deviation of the map": shown, "predictive entropy": unsure_of, "predictive deviation": unsteady}
        columns = {
            place: [float(values[mask].mean()) for values in asked.values()]
            for place, mask in (("region", inside), ("elsewhere", ~inside))
            if bool(mask.any())  # the region may be all there is
        }
        table = Table("uncertainty", {"mean of": [*asked], **columns})
        text = (
            f"Guided backpropagation of {case.target.name} over {plural(case.target.pixels, 'pixel')}, {maps.n} "
            f"samples with dropout: the map's deviation is {unsure:.0%} of its size, the entropy in the region "
            f"{columns['region'][1]:.3g} nats, the probability's deviation there {columns['region'][2]:.2g}.{remark}"
        )
        return Explanation(layers, (table,), text=text)
