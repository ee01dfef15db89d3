"""Segmented score map: a class's score by segments of the image, the best first."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method
from seglens.engine.case import Case
from seglens.methods.gradient._regions import Dilation, ScoreLayer, Smallest, grown_answer, score_map, segments


class SegmentedScoreMap(Method):
    """Segments of several scales, of which the one with the largest mean score comes first, then the best of the rest.

    The growth is that of XRAI, on scores instead of attributions: it makes a noisy map readable. XRAI dilates segments
    by 5 pixels, to have the edges where attributions lie; scores lie inside, so nothing is dilated unless asked for.
    """

    title = "Segmented score map"
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
        """Values and order of the segments, and the score itself."""
        score, where = score_map(case, self.layer)
        return grown_answer(self.title, case, score, where, segments(case, self.smallest, self.dilation))
