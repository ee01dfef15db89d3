"""Concepts of a layer: shares of its channels, their maps, examples in other images, and the mask without them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.boxes import Box
from seglens.core.errors import MissingNeed, NoSuchRegion
from seglens.core.explanation import Table
from seglens.core.image import Image
from seglens.core.param import Param
from seglens.core.target import Predicted, Target
from seglens.engine.case import Case
from seglens.engine.channels import stages
from seglens.engine.replay import Replay
from seglens.engine.resolve import resolve
from seglens.engine.rules import Flow, Relevance, Trace
from seglens.models.classes import log_probability
from seglens.models.layers import find_layer

SEEN = 0.1  # of a map's largest value: what is shown of an example

Begin = Annotated[
    Literal["positive-logit", "logit", "probability", "one"],
    Param(
        "What each pixel of the region starts with, over the sum of all sizes; positive-logit takes those pixels alone "
        "that the model gives to the class."
    ),
]


def beginning(trace: Trace, begin: str) -> Tensor:
    """What goes in at the end, (1, K, *box): the class's value where the region is, sizes adding up to 1; or zero."""
    assert trace.logits is not None  # only DeepLift looks at scores alone
    own, inside = trace.target.index, (trace.target.weights > 0).to(trace.logits)
    value = {
        "positive-logit": lambda: trace.logits[:, own].clamp(min=0),
        "logit": lambda: trace.logits[:, own],
        "probability": lambda: log_probability(trace.logits, own, trace.target.overlapping).exp(),
        "one": lambda: torch.ones_like(trace.logits[:, own]),
    }[begin]()
    out = torch.zeros_like(trace.logits)
    if begin == "positive-logit":
        inside = inside * trace.target.drawn(trace.logits)
    out[:, own] = value * inside
    total = out.abs().sum()  # logits of both signs may add up to nearly nothing
    return out / total if float(total) else out


def counted(start: Tensor, begin: str) -> str:
    """How many pixels a beginning starts from, in words."""
    many = int((start != 0).any(1).sum())
    which = " (the model gives them to it, and its logit is above 0)" if begin == "positive-logit" else ""
    return f"of which {many} count{which}"


def shares(came: Tensor) -> Tensor:
    """Of what came to a layer (1, K, *s), the share of each channel (K,): its sum over the sum of all sizes."""
    sums = came[0].flatten(1).sum(1)
    return sums / sums.abs().sum().clamp(min=1e-30)


def alone(came: Tensor, channel: int) -> Tensor:
    """What came to one channel, zero in the others."""
    out = torch.zeros_like(came)
    out[:, channel] = came[:, channel]
    return out


def part_of(whole: Flow, by_layer: Flow) -> float:
    """How much of the whole came by a layer, in sizes."""
    return float(by_layer.values.abs().sum() / whole.values.abs().sum())


def passes_most(trace: Trace, start: Tensor, whole: Flow) -> tuple[str, float]:
    """Of one layer at each depth the one by which most of the whole came, of equals the last; and its part."""
    found, depths = [("", 0.0)], stages(trace.case.model)
    for done, info in enumerate(depths):
        trace.case.run.progress(done, len(depths), "layers")
        try:
            part = part_of(whole, trace.below(info.name, trace.at(info.name, start)))
        except MissingNeed:  # nothing of the image comes there
            continue
        found.append((info.name, round(part, 2)))
    return max(reversed(found), key=lambda one: one[1])


def context(values: Tensor, region: Tensor) -> float:
    """The share of a map (1, C, *space), summed over C, outside a region (*space), whatever its sign; NaN if empty."""
    size = values[0].sum(0).abs()
    return float(size[~region].sum() / size.sum()) if float(size.sum()) else nan


def mean_context(found: Sequence["Example"]) -> float:
    """Over the examples in which the concept has a map; NaN if it has none."""
    known = [e.context for e in found if not isnan(e.context)]
    return sum(known) / len(known) if known else nan


@dataclass(frozen=True)
class Example:
    """What a concept sees in a reference image.

    Args:
        name: of the image.
        share: of the concept in what speaks for the class there.
        context: the part of its map that lies outside the class's region; NaN of an empty map.
        box: where the map is strong; empty of an empty map.
    """

    name: str
    share: float
    context: float
    box: Box


def examples(case: Case, rules: Relevance, layer: str, begin: str, concepts: Sequence[int]) -> dict[int, list[Example]]:
    """Per concept the reference images in which the class is seen, the most relevant first."""
    found: dict[int, list[Example]] = {k: [] for k in concepts}
    for done, image in enumerate(case.reference):
        case.run.progress(done, len(case.reference), "reference images")
        trace = _of(case, image, rules)
        if trace is None:
            case.run.note(f"{image.name} has no {case.target.name}, and is left out.")
            continue
        came = trace.at(layer, beginning(trace, begin))
        share = shares(came)
        region = trace.case.target.weights > 0
        for k in concepts:
            values = trace.below(layer, alone(came, k)).values
            found[k].append(Example(image.name, float(share[k]), context(values, region), _strong(values)))
    return {k: sorted(every, key=lambda e: -e.share) for k, every in found.items()}


def _of(case: Case, image: Image, rules: Relevance) -> Trace | None:
    """The same class asked of another image; ``None`` where it is not seen."""
    try:
        other = resolve(image, case.model, Target(case.target.name, Predicted()), case.run)
    except NoSuchRegion:
        return None
    low, high = (edge(other.x, tuple(range(2, other.x.ndim)), keepdim=True) for edge in (Tensor.amin, Tensor.amax))
    return Trace(other, replace(rules, low=low, high=high))


def _strong(values: Tensor) -> Box:
    size = values[0].sum(0).abs()
    if not bool(size.any()):
        return ()
    at = (size >= SEEN * size.max()).nonzero()
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(at.amin(0), at.amax(0), strict=True))


def gallery(found: dict[int, list[Example]], axes: str, most: int) -> Table:
    """The examples as a table, a row each."""
    rows = [(k, e) for k, every in found.items() for e in every[:most]]
    where = [", ".join(f"{a} {s.start}:{s.stop}" for a, s in zip(axes, e.box, strict=False)) or "–" for _, e in rows]
    return Table(
        "references",
        {
            "concept": [k for k, _ in rows],
            "image": [e.name for _, e in rows],
            "share": [e.share for _, e in rows],
            "context": [e.context for _, e in rows],
            "where": where,
        },
    )


def without(case: Case, layer: str, concepts: Sequence[int]) -> dict[str, list[float]]:
    """Each concept's channel set to its mean over space: Dice of the class's mask, pixels that change, the score."""
    replay = Replay(case.model.logits, find_layer(case.model, layer), case.x, trust=False)
    case.run.cost.forwards += replay.forwards
    columns: dict[str, list[float]] = {"Dice without": [], "pixels changed": [], "score without": []}
    before = case.drawn()
    for done, k in enumerate(concepts):
        case.run.progress(done, len(concepts), "masks without a concept")
        changed = replay.activation.clone()
        changed[:, k] = changed[:, k].mean()
        logits = replay(changed)
        case.run.cost.forwards += 1
        labels, after = case.classes(logits)[0], case.drawn(logits)
        both = before.sum() + after.sum()
        columns["Dice without"].append(float(2 * (before & after).sum() / both) if both else 1.0)
        columns["pixels changed"].append(float((labels != case.labels).sum()))
        columns["score without"].append(float(case.score(logits)[0]))
    return columns
