"""ProtoSeg: a logit as the sum over prototypes of how alike the pixels are to each, times its weight."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method, Need, Scope, Timing
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.prototypes import Contribution, Prototype, PrototypeView, check_prototypes, prototypes_of

Maps = Annotated[int, Param("How many prototypes get a map, those that bring most first.", ge=1, le=64, quick=2)]


class ProtoSeg(Method):
    """What a prototype network itself computes: nothing is estimated, and the products add up to the target's score.

    Similarity is log((d + 1) / (d + 1e-4)) with d the squared distance to the prototype, 9.21 where it is the same.
    A prototype is a pixel of a training image; its crop shows what is around it, and the network may have seen more.
    """

    title = "ProtoSeg"
    cite = "sacha2023"
    survey = (54,)
    fidelity = Fidelity.SMALL
    scope = Scope.REGION
    timing = Timing.AD_HOC
    works_on = "prototype networks"
    needs = frozenset({Need.PROTOTYPES, Need.LAYER})

    maps: Maps = 3

    def check(self, case: Case) -> None:
        """Raise MissingNeed if the network has no prototype layer."""
        check_prototypes(case.model)

    def passes(self, case: Case) -> tuple[float, int]:
        """One."""
        return (1.0, 1)

    def run(self, case: Case) -> Explanation:
        """Similarity maps, the winning prototype of each pixel, and what each prototype brings to the score."""
        view = PrototypeView(case.model, case.image, case.run)
        known = {p.number: p for p in prototypes_of(case.model)}
        rows = decomposed(case, view)
        total = sum(row.product for row in rows)
        first = sorted(rows, key=lambda row: -row.product)
        best = [row for row in first if row.product > 0][: self.maps] or first[:1]
        maps = tuple(_map(view, row) for row in best)
        winners = (Layer("winning prototype", "labels", view.winners()),)
        bars = Figure(
            "products", "bar", [f"{r.number} {r.label}" for r in rows], {"product": [r.product for r in rows]}
        )
        read = "margin" if case.target.value == "margin" else "logit"
        text = (
            f"The {read} of {case.target.name} over {plural(case.target.pixels, 'pixel')} is the sum of "
            f"{plural(len(rows), 'prototype')}: {total:.4g}. Most for it bring "
            + ", ".join(f"prototype {r.number} ({r.label}, {r.product:+.3g})" for r in best)
            + "."
        )
        if case.target.value not in ("logit", "margin"):
            text += f" The target reads a {case.target.value}, which no sum can tell; the sum is that of the logit."
        return Explanation((*maps, *winners, *_origins(case, known)), (_table(rows, known),), (bars,), text)


def decomposed(case: Case, view: PrototypeView) -> list[Contribution]:
    """What each prototype brings to the target's logit, or to its margin over the best other class of each pixel."""
    target, rows = case.target, view.head.counting().detach().cpu().double().numpy()
    weights = target.weights / (target.pixels if target.mean else 1)
    similarity, products = view.over(weights), np.zeros(rows.shape[1])
    if target.value == "margin":
        others = case.logits[0].clone()
        others[target.index] = -np.inf
        rival = others.argmax(0)
        for k in set(rival[target.weights != 0].tolist()):
            products += view.over(weights * (rival == k)) * (rows[target.index] - rows[k])
        row = np.divide(products, similarity, out=np.zeros_like(products), where=similarity != 0)
    else:
        row = rows[target.index]
    return view.shares(similarity, row)


def _map(view: PrototypeView, row: Contribution) -> Layer:
    name, size = f"similarity with prototype {row.number} ({row.label})", tuple(view.similarities.shape[1:])
    return Layer(name, "heat", view.at_image(row.number), "similarity", resolution=size)


def _origins(case: Case, known: dict[int, Prototype]) -> tuple[Layer, ...]:
    """Where prototypes were taken from this very image."""
    own = case.image.fingerprint()
    places: list[tuple[int, ...]] = [p.position for p in known.values() if p.image == own]
    at: NDArray[np.float64] = np.array(places, float)
    return (Layer("prototypes taken here", "points", at),) if places else ()


def _table(rows: list[Contribution], known: dict[int, Prototype]) -> Table:
    from_where = [known[row.number] for row in rows]
    columns: dict[str, list[Any]] = {
        "prototype": [row.number for row in rows],
        "class": [row.label for row in rows],
        "similarity": [row.similarity for row in rows],
        "weight": [row.weight for row in rows],
        "product": [row.product for row in rows],
        "crop": [f"{p.name} at {','.join(map(str, p.position))}" if p.name else "" for p in from_where],
    }
    return Table("prototypes", columns)
