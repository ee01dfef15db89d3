"""What prototype rules say of an image: maps, tables, and in words how far they follow the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.engine.case import Case
from seglens.engine.printed_rules import RuleSet, distances
from seglens.methods.prototype._rules import Pixels

POOR = 0.9  # agreement below which the rules do not stand for the network


def answer(case: Case, seen: Pixels, rules: RuleSet, images: int) -> Explanation:
    """Evaluate the rules on the image.

    Args:
        case: the question.
        seen: the image's pixels.
        rules: what to evaluate.
        images: how many the rules were learned from.
    """
    prototypes = rules.prototypes
    owner = np.array([p.label for p in prototypes])
    best, winner = _nearest(case, seen, rules, owner)
    likeness = 1 / (1 + best)  # (classes of prototypes, n)
    labels = owner[winner].astype(np.uint8)
    kinds, target = np.unique(owner), case.target.index
    own = likeness[kinds == target].max(0, initial=0.0)
    others = likeness[kinds != target].max(0, initial=0.0)
    shape = case.shape
    numbers = np.array([p.number for p in prototypes])
    here = np.array([p.position for p in prototypes if p.own], np.float64).reshape(-1, len(shape))
    layers = [
        Layer(f"like {case.target.name}", "signed", (own - others).reshape(shape).astype(np.float32), "likeness"),
        Layer("drawn by the rules", "labels", labels.reshape(shape)),
        Layer("winning prototype", "labels", numbers[winner].reshape(shape).astype(np.int32)),
    ]
    if len(here):
        layers.append(Layer("prototypes", "points", here))
    names = [c.name for c in case.model.spec.classes]
    axes = case.model.spec.axes
    printed = rules.printed(axes, names)
    tables = (
        _prototypes(case, seen, rules, winner),
        Table("rules", {"rule": printed}),
        _agreement(seen.labels, labels, names),
    )
    won = {"pixels": np.bincount(winner, minlength=len(prototypes)).tolist()}
    bars = Figure("pixels by prototype", "bar", [f"{p.number} {names[p.label]}" for p in prototypes], won, "prototype")
    told = _told(seen, rules, labels, images) + _spoken(case, rules, winner, own, others, names)
    return Explanation(tuple(layers), tables, (bars,), told)


def _nearest(
    case: Case, seen: Pixels, rules: RuleSet, owner: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The least distance to each class's prototypes (classes, n), and the nearest prototype (n,)."""
    values = np.stack([p.values for p in rules.prototypes])
    kinds, best, winners = np.unique(owner), [], []
    for done, part in enumerate(distances(seen.values, rules.scale, values)):
        case.run.progress(done, done + 1, "pixels")
        best.append(np.stack([part[:, owner == k].min(1) for k in kinds]))
        winners.append(part.argmin(1))
    return np.concatenate(best, 1), np.concatenate(winners)


def _prototypes(case: Case, seen: Pixels, rules: RuleSet, winner: NDArray[np.intp]) -> Table:
    """One row for each prototype; a row of this image has a place to go to."""
    axes, spec = case.model.spec.axes, case.model.spec
    every, won = rules.prototypes, np.bincount(winner, minlength=len(rules.prototypes))
    right = [float((seen.labels[winner == i] == p.label).mean()) if won[i] else 0.0 for i, p in enumerate(every)]
    columns: dict[str, list[Any]] = {
        "prototype": [p.number for p in every],
        "class": [spec.classes[p.label].name for p in every],
        "image": [p.image for p in every],
        "position": [", ".join(f"{a} {n}" for a, n in zip(axes, p.position, strict=True)) for p in every],
        "pixels": won.tolist(),
        "of these drawn alike": right,
    }
    for i, name in enumerate(rules.names):
        if name in spec.channels:
            columns[name] = [float(p.values[i]) for p in every]
    for i, axis in enumerate(axes):
        columns[f"{axis} start"] = [p.position[i] if p.own else None for p in every]
        columns[f"{axis} stop"] = [p.position[i] + 1 if p.own else None for p in every]
    return Table("prototypes", columns)


def _agreement(drawn: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str]) -> Table:
    """For each class that either draws: pixels, and Dice of rules and network."""
    kinds = np.union1d(drawn, labels).tolist()
    both = [int(((drawn == k) & (labels == k)).sum()) for k in kinds]
    network, rules = ([int((one == k).sum()) for k in kinds] for one in (drawn, labels))
    dice = [2 * b / (n + r) for b, n, r in zip(both, network, rules, strict=True)]
    return Table("agreement", {"class": [names[k] for k in kinds], "network": network, "rules": rules, "Dice": dice})


def _told(seen: Pixels, rules: RuleSet, labels: NDArray[np.uint8], images: int) -> str:
    alike = float((labels == seen.labels).mean())
    where = "this image" if images == 1 else f"{images} images, this one included"
    most = float(np.bincount(seen.labels).max() / len(seen.labels))
    text = (
        f"{len(rules.prototypes)} rules on {len(rules.names)} values of each pixel, learned from what the network "
        f"draws on {where}, draw {alike:.1%} of the pixels as the network does "
        f"({most:.1%} by calling all of them the most frequent class)."
    )
    if alike < POOR:
        text += " They do not stand for the network: more prototypes or other features may."
    return text


def _spoken(
    case: Case,
    rules: RuleSet,
    winner: NDArray[np.intp],
    own: NDArray[np.float64],
    others: NDArray[np.float64],
    names: Sequence[str],
) -> str:
    """The rules in short, and the one that most of the region follows."""
    by_class: dict[int, list[str]] = {}
    for p in rules.prototypes:
        by_class.setdefault(p.label, []).append(str(p.number))
    short = "; ".join(f"IF like prototype {' OR '.join(n)} THEN {names[k]}" for k, n in by_class.items())
    region = case.target.region.ravel()
    counts = np.bincount(winner[region], minlength=len(rules.prototypes))
    first = int(counts.argmax())
    p = rules.prototypes[first]
    inside = region & (winner == first)
    at = ", ".join(f"{a} {n}" for a, n in zip(case.model.spec.axes, p.position, strict=True))
    likeness = own if p.label == case.target.index else others
    rest = others if p.label == case.target.index else own
    against = f" (the best against it, {rest[inside].mean():.2f})" if rest.any() else ""
    return (
        f" {short}. Of the region of {case.target.name}, {counts[first] / counts.sum():.0%} is most like prototype "
        f"{p.number}, {names[p.label]}, at {at} of {p.image}: mean likeness {likeness[inside].mean():.2f}{against}."
    )
