"""Concept relevance: the channels of a layer that made the region this class, what each sees, the mask without it."""

from collections.abc import Callable
from typing import Annotated

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Need, Scope
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod
from seglens.engine.rules import Flow, Trace
from seglens.methods.gradient._concepts import (
    Begin,
    alone,
    beginning,
    context,
    counted,
    examples,
    gallery,
    mean_context,
    part_of,
    passes_most,
    shares,
    without,
)
from seglens.methods.gradient._rules import Composite, composite, declared, insensitive
from seglens.methods.gradient._shared import as_map

Concepts = Annotated[int, Param("How many channels to follow to the image.", ge=1, le=64, quick=2)]
Examples = Annotated[int, Param("Reference images to name per channel.", ge=1, le=1000)]
Off = Annotated[bool, Param("Also draw the mask with each of these channels set to its mean.")]
SAME = 1e-4  # of a map's largest value
LITTLE = 0.1  # of the relevance: with less, another layer is looked for


class ConceptRelevance(LayerMethod):
    """LRP down to a layer, channels ranked by their share, and on from each of them alone (L-CRP)."""

    title = "Concept relevance"
    cite = "dreyer2023"
    survey = (200, 203)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT, Need.LAYER})
    takes = frozenset({Need.REFERENCE})

    concepts: Concepts = 3
    composite: Composite = "epsilon-plus-flat"
    begin: Begin = "positive-logit"
    examples: Examples = 12
    off: Off = True

    def run(self, case: Case) -> Explanation:
        """The whole relevance, one map per concept, and a table of shares, context scores and what each changes."""
        name, rules = case.layer(self.layer), composite(case, self.composite, 0.25)
        trace = Trace(case, rules)
        start = beginning(trace, self.begin)
        whole, came = trace.back(start), trace.at(name, start)
        share = shares(came)
        top = share.abs().argsort(descending=True)[: self.concepts].tolist()
        maps = [trace.below(name, alone(came, k)).values for k in top]
        region = case.target.weights > 0
        columns = {
            "concept": top,
            "share": [float(share[k]) for k in top],
            "context": [context(values, region) for values in maps],
        }
        tables = []
        if case.reference:
            found = examples(case, rules, name, self.begin, top)
            best = [found[k][: self.examples] for k in top]
            columns["context, references"] = [mean_context(b) for b in best]
            tables.append(gallery(found, case.model.spec.axes, self.examples))
        if self.off:
            columns |= without(case, name, top)
        layers = [Layer("relevance", "signed", as_map(whole.values[0].sum(0)), "share of the whole")]
        layers += [
            Layer(f"concept {k}", "signed", as_map(values[0].sum(0)), "share of the whole")
            for k, values in zip(top, maps, strict=True)
        ]
        bars = Figure("shares", "bar", top, {"share": columns["share"]}, "channel", "share of the relevance")
        through = self._through(name, whole, trace.below(name, came), lambda: passes_most(trace, start, whole))
        text = (
            f"{self.title} of {case.target.name} over {plural(case.target.pixels, 'pixel')}, "
            f"{counted(start, self.begin)}. {through}{declared(trace)}{insensitive(self.composite)}"
        )
        return Explanation(tuple(layers), (Table("concepts", columns), *tables), (bars,), text)

    def _through(self, name: str, whole: Flow, by_layer: Flow, better: Callable[[], tuple[str, float]]) -> str:
        """Whether all relevance passes the layer: only then do its channels explain everything."""
        size = float(whole.values.abs().max())
        if size == 0:
            return "Nothing in the region speaks for it, and all maps are zero."
        if float((whole.values - by_layer.values).abs().max()) <= SAME * size:
            return f"All relevance passes {name}, so its channels together are the whole."
        part = part_of(whole, by_layer)
        told = f"{part:.0%} of the relevance passes {name}; the rest goes round it, over skips, and is in no concept."
        other, most = better() if part < LITTLE else ("", part)
        return f"{told} {most:.0%} passes {other}: try that layer." if most > part + LITTLE else told
