"""What maps of segments share: scores of a class, candidates, and the answer that grows from them."""

from __future__ import annotations

from typing import Annotated

from scipy.sparse import csr_array

from seglens.core.explanation import Explanation, Figure, Kind, Layer, Table
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.channels import activation_map, cam_layer, seen_at
from seglens.engine.growth import Grown, grow, oversegmented
from seglens.methods.gradient._cams import spatial_mean
from seglens.methods.gradient._shared import as_map

SHOWN = 20  # parts in the table

ScoreLayer = Annotated[
    str | None,
    Param(
        "Whose scores: the network's, or the class activation map of a layer.",
        source="layers",
        empty="the network's answer",
    ),
]
Smallest = Annotated[int, Param("Segments have at least so many pixels.", ge=1, le=1_000_000, unit="px", quick=20)]
Dilation = Annotated[
    int, Param("How far segments are dilated, so that they hold their edge (XRAI: 5).", ge=0, le=64, unit="px")
]


def score_kind(case: Case) -> Kind:
    """How a map of the target's value is shown: a probability from 0 upwards, all else around 0."""
    return "heat" if score_unit(case) == "probability" else "signed"


def score_unit(case: Case) -> str:
    """What a pixel's score is: a metric is one of the whole region, and takes from each pixel its probability."""
    return "probability" if case.target.value == "dice" else case.target.value


def score_map(case: Case, layer: str | None) -> tuple[Layer, str]:
    """The class's score per pixel, as the network answers or as a layer's class activation map.

    Returns:
        The map, and in words where it comes from.
    """
    name = f"score of {case.target.name}"
    if layer is None:
        values = as_map(case.target.per_pixel(case.logits)[0])
        return Layer(name, score_kind(case), values, score_unit(case)), "the network's answer"
    activation, gradient = case.activations(layer)
    cam = activation_map(case, activation, spatial_mean(gradient[0]), rectified=False)
    own = cam_layer(name, cam, False, case.target.value, "signed", activation.shape[2:])
    return own, f"layer {layer} ({seen_at(case, activation)})"


def segments(case: Case, smallest: int, dilation: int) -> csr_array:
    """Segments of the clean image at several scales."""
    return oversegmented(case.intensities(case.x), len(case.shape), smallest, case.run, dilation=dilation)


def grown_answer(title: str, case: Case, score: Layer, where: str, candidates: csr_array) -> Explanation:
    """The score by segments, the best first: their values, their order, and what they cover."""
    grown = grow(score.data, candidates)
    values = Layer(title, score.kind, grown.values, score.unit)
    order = Layer("order", "labels", grown.rank)
    covered, total = [], 0
    for *_, pixels in grown.parts:
        total += pixels
        covered.append(total / grown.values.size)
    means = [mean for _, mean, _ in grown.parts]
    line = Figure("score by area", "line", covered, {score.unit: means}, "share of the image", score.unit)
    best = grown.parts[0]
    text = (
        f"{title} of {case.target.name}, from {where}: {candidates.shape[0]} segments, {len(grown.parts)} of which "
        f"were needed. The best has {plural(best[2], 'pixel')} of mean {score.unit} {best[1]:.4g}. It ranks what "
        "the model answers there, and does not say where the answer comes from."
    )
    return Explanation((values, order, score), (parts_table(grown, covered, score.unit),), (line,), text)


def parts_table(grown: Grown, covered: list[float], unit: str) -> Table:
    """The first parts."""
    first = grown.parts[:SHOWN]
    columns = {
        "order": [*range(1, len(first) + 1)],
        f"mean {unit}": [mean for _, mean, _ in first],
        "new pixels": [pixels for *_, pixels in first],
        "covered": covered[: len(first)],
    }
    return Table("segments", columns)
