"""Similarity map: how high a class scores on what the model drew as each class, or as each object."""

from typing import Annotated, Any, Literal

import numpy as np

from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Fidelity, Method
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.growth import grow, members
from seglens.engine.target import objects
from seglens.methods.gradient._regions import ScoreLayer, score_map

Parts = Annotated[Literal["classes", "objects"], Param("What is compared: predicted classes, or single objects.")]


class SimilarityMap(Method):
    """The mean score of one class over the predicted masks of all: what the model takes for nearly that class."""

    title = "Similarity map"
    cite = "schorr2021"
    survey = (96, 97)
    fidelity = Fidelity.AFTER
    locates = False

    layer: ScoreLayer = None
    parts: Parts = "classes"

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there."""
        if self.layer is not None:
            case.layer(self.layer)

    def run(self, case: Case) -> Explanation:
        """Values and order of the masks, as maps and as a table."""
        score, where = score_map(case, self.layer)
        labels = case.labels
        numbers = labels if self.parts == "classes" else objects(labels)
        grown = grow(score.data, members(numbers))
        found, names = np.unique(numbers), [c.name for c in case.model.spec.classes]
        kinds = [names[int(labels[grown.rank == n + 1][0])] for n in range(len(grown.parts))]
        columns: dict[str, list[Any]] = {
            "class": [*kinds],
            f"mean {score.unit}": [mean for _, mean, _ in grown.parts],
            "pixels": [pixels for *_, pixels in grown.parts],
        }
        if self.parts == "objects":
            columns = {"object": [int(found[which]) for which, *_ in grown.parts]} | columns
        others = [
            (mean, kind) for (_, mean, _), kind in zip(grown.parts, kinds, strict=True) if kind != case.target.name
        ]
        nearest = f"Of what it drew otherwise, {others[0][1]} scores highest: {others[0][0]:.4g}." if others else ""
        layers = (
            Layer(self.title, score.kind, grown.values, score.unit),
            Layer("order", "labels", grown.rank),
            score,
        )
        text = f"Mean {score.unit} of {case.target.name} over predicted {self.parts}, from {where}. {nearest}".strip()
        return Explanation(layers, (Table(self.parts, columns),), text=text)
