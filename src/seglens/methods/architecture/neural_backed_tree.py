"""SegNBDT: a pixel's class as a path of decisions between groups of classes, with a map for each decision."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Method, Need, Scope, Timing
from seglens.core.param import Layer as LayerName
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.class_tree import ward
from seglens.engine.gradients import layer_gradient
from seglens.methods.architecture._shared import class_head
from seglens.methods.architecture._tree import Reading
from seglens.models.layers import find_layer

Decision = Annotated[
    Literal["soft", "hard"],
    Param("How the tree decides: the likeliest product along a path, or the likelier side at each node."),
]
Maps = Annotated[int, Param("How many decisions of the path get a map, the clearest first.", ge=1, le=16, quick=1)]


class NeuralBackedTree(Method):
    """Ward's clustering of the head's weight rows makes a binary tree of the classes; its nodes are read per pixel.

    A node's score is the mean logit of the classes under it. GradPAM of a decision is ReLU(Σ_k A_k ∂s/∂A_k) at a
    layer, not pooled, with s the score of the side that leads to the target's class, over the target's region
    (whatever value the target reads). The first map is of the clearest decision: that with the largest difference
    of scores in the region. Biases do not enter the tree.

    The tree is taken from the network as it is. The paper fine-tunes the network with a loss on the tree; that is
    not done here, so the tree follows the network less closely, and the text says how closely.
    """

    title = "SegNBDT"
    cite = "wan2020"
    survey = (84,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    timing = Timing.POST_HOC
    works_on = "networks that end in a 1×1 convolution, 3 classes or more"
    needs = frozenset({Need.GRADIENT, Need.LAYER})
    min_classes = 3
    few_classes = "a tree over two classes is the softmax itself"

    layer: LayerName = None
    decision: Decision = "soft"
    maps: Maps = 3

    def check(self, case: Case) -> None:
        """Raise MissingNeed without a head of class rows, UnknownName if the layer is not there."""
        class_head(case)
        case.run.check()
        case.layer(self.layer)

    def run(self, case: Case) -> Explanation:
        """Maps of the clearest decisions, the tree's own mask, the path as a table and the tree as a figure."""
        head, rows = class_head(case)
        reading = Reading(case, ward(rows), self.decision == "hard")
        layer = case.layer(self.layer)
        tables, figures = (reading.path(), reading.agreement()), (reading.figure(),)
        answer = Explanation(reading.layers(), tables, figures, reading.text(head))
        maps: tuple[Layer, ...] = ()
        clearest = sorted(reading.children, key=reading.margin, reverse=True)[: self.maps]
        for done, child in enumerate(clearest, start=1):
            maps += (_grad_pam(reading, child, layer),)
            case.run.partial(partial(replace, answer, layers=maps + answer.layers))
            case.run.progress(done, len(clearest), "decisions")
        return replace(answer, layers=maps + answer.layers)


def _grad_pam(reading: Reading, child: int, layer: str) -> Layer:
    """ReLU(Σ_k A_k ∂s/∂A_k) at image size (*space)."""
    case = reading.case
    over_region = replace(case.target, index=0, value="logit", live=False)

    def score(logits: Tensor) -> Tensor:
        return over_region(reading.tree.score(logits, child)[:, None])

    activation, gradient = layer_gradient(case.model, find_layer(case.model, layer), case.x, score, case.run)
    found = torch.relu((activation * gradient).sum(1, keepdim=True))
    return Layer(f"GradPAM: {reading.sides(child)}", "heat", case.at_image(found), f"logit, at layer {layer}")
