"""Guided segmentation map: a class's score by segments of the image and by what the model drew, the best first."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method
from seglens.engine.case import Case
from seglens.engine.growth import members, together
from seglens.methods.gradient._regions import Dilation, ScoreLayer, Smallest, grown_answer, score_map, segments


class GuidedSegmentationMap(Method):
    """A segmented score map whose segments may also be the predicted masks of the classes.

    Where a whole mask scores higher than any segment of the image, the model's own border is the better one.
    """

    title = "Guided segmentation map"
    cite = "schorr2021"
    survey = (96, 97)
    fidelity = Fidelity.AFTER
    locates = False

    layer: ScoreLayer = None
    smallest: Smallest = 150
    dilation: Dilation = 0

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        if self.layer is not None:
            case.layer(self.layer)

    def run(self, case: Case) -> Explanation:
        """Values and order of segments and masks, and the score itself."""
        score, where = score_map(case, self.layer)
        own = segments(case, self.smallest, self.dilation)
        return grown_answer(self.title, case, score, where, together([own, members(case.labels)]))
