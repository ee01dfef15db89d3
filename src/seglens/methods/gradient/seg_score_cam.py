"""Seg-Score-CAM: a layer's channels, weighted by how much of the target's score each keeps as a mask of the image."""

from seglens.core.method import Fidelity
from seglens.methods.gradient._cams import ScoreCAM


class SegScoreCAM(ScoreCAM):
    """No gradient is needed: one forward pass per channel.

    The score is the mean over the region's pixels, also where a sum was asked for: a softmax of sums gives all the
    weight to one channel.
    """

    title = "Seg-Score-CAM"
    cite = "gizzini2023"
    survey = (94,)
    fidelity = Fidelity.EXACT
