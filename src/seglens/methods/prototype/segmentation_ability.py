"""Segmentation ability: how well the features of every layer alone draw the mask, beside what chance draws."""

from typing import Annotated, Literal

import numpy as np

from seglens.core.errors import ImageMismatch
from seglens.core.explanation import Explanation, Figure, Table
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.channels import stages
from seglens.methods.prototype._ability import Guides, decided, depths, map_of, scores, told
from seglens.models.layers import layers

Which = Annotated[
    Literal["every layer", "one for each depth"], Param("Which layers to ask.", quick="one for each depth")
]
Draws = Annotated[int, Param("Draws of noise, of each layer's size, for the line of chance.", ge=1, le=50, quick=1)]


class SegmentationAbility(Method):
    """One prototype for a class and one for the rest, guided by the network's own answer, or by an annotation.

    It looks at the whole image, whatever the region; of the target, the class counts. A guide from a wrong prediction
    hides the failure: high ability says that the layer knows what the network draws, not that it is right.
    """

    title = "Segmentation ability map"
    cite = "he2023"
    survey = (149,)
    scope = Scope.IMAGE
    fidelity = Fidelity.EXACT
    works_on = "networks whose layers can be seen"
    needs = frozenset({Need.LAYER})
    takes = frozenset({Need.ANNOTATION})
    locates = False

    which: Which = "every layer"
    draws: Draws = 3

    def check(self, case: Case) -> None:
        """An annotation of the image's size, with something drawn."""
        drawn = case.annotation
        if drawn is not None and (np.shape(drawn) != case.shape or not np.any(drawn)):
            what = f"has shape {np.shape(drawn)}, the image {case.shape}" if np.any(drawn) else "is empty"
            raise ImageMismatch(f"The annotation {what}.", fix="Draw the class on this image, or crop the mask to it.")

    def passes(self, case: Case) -> tuple[float, int]:
        """One, for all layers."""
        return (1.0, 1)

    def run(self, case: Case) -> Explanation:
        """A map for each depth, from where on pixels stay decided, and scores of all layers and classes."""
        guides = Guides.of(case)
        case.run.check()
        depth = [info.name for info in stages(case.model)]
        case.run.check()
        every = [info.name for info in layers(case.model) if not info.final or info.name in depth]
        found = depths(case, every if self.which == "every layer" else depth, depth, guides)
        table, shown = scores(case, found, guides, self.draws), [d for d in found if d.name in depth]
        best = max(shown, key=lambda d: d.dices[guides.own])
        maps = [layer for d in (best, *(d for d in shown if d is not best)) for layer in map_of(case, d)]
        names = [c.name for c in case.model.spec.classes]
        rest = {names[k]: [d.dices[g] for d in shown] for g, k in enumerate(guides.present)}
        lines = {name: values for name, values in table.columns.items() if name not in ("layer", "channels", "map")}
        figures = (
            Figure("ability by layer", "line", table.columns["layer"], lines, "layer", "Dice"),
            Figure("each class against the rest", "bar", [d.name for d in shown], rest, "layer", "Dice"),
        )
        classes = Table("classes", {"layer": [d.name for d in shown], **rest})
        since = decided(case, shown, guides.masks[guides.own])
        return Explanation((*maps, since), (table, classes), figures, told(case, table, best.name, len(shown)))
