"""Prototype rules: IF a pixel is like one of these real pixels THEN it is of their class, printed and replayed."""

from typing import Annotated, Literal

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Layer as LayerName
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.methods.prototype._rules import also, last_layer, learn, look
from seglens.methods.prototype._rules_answer import answer

Features = Annotated[
    Literal["intensities and layer", "intensities", "layer"],
    Param("What pixels are compared by: what is in the file, what a layer answers, or both.", quick="intensities"),
]
OneLayer = Annotated[LayerName, Param("The layer.", source="layers", empty="the last before the answer")]
Count = Annotated[int, Param("Prototypes of each class, at most.", ge=1, le=100, quick=4)]
Batch = Annotated[int, Param("Pixels in a mini-batch.", ge=1, le=1_000_000)]
Steps = Annotated[int, Param("Mini-batches for each class.", ge=1, le=10_000, quick=20)]
Pixels = Annotated[int, Param("Pixels of each class and image to learn from, drawn at random.", ge=10, le=1_000_000)]
LeaveOut = Annotated[str, Param("Numbers of prototypes that do not convince, such as 3,7: the rules go without them.")]


class PrototypeRules(Method):
    """The rules follow the network's mask and are not the network: how many pixels they give alike is told.

    They are learned from what the network draws on this image, and on references if there are any.
    """

    title = "Prototype rules"
    cite = "zhang2022idss"
    survey = (61,)
    fidelity = Fidelity.AFTER
    scope = Scope.IMAGE
    takes = frozenset({Need.REFERENCE})
    locates = False

    features: Features = "intensities and layer"
    layer: OneLayer = None
    prototypes: Count = 10
    batch: Batch = 1024
    steps: Steps = 100
    pixels: Pixels = 20_000
    leave_out: LeaveOut = ""

    def check(self, case: Case) -> None:
        """Raise MissingNeed or UnknownName if the layer cannot be seen."""
        if self.features != "intensities":
            last_layer(case, self.layer)

    def run(self, case: Case) -> Explanation:
        """Likeness to the class against the others, what the rules draw, which prototype won; the rules."""
        layer = None if self.features == "intensities" else last_layer(case, self.layer)
        seen = []
        for one in (case, *(also(case, image) for image in case.reference)):
            seen.append(look(one, self.features != "layer", layer))
        rules = learn(case, seen, self.prototypes, self.batch, self.steps, self.pixels).without(self.leave_out)
        return answer(case, seen[0], rules, len(seen))
