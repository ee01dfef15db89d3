"""Bottleneck projection: all examples as points, in clusters, and where among them the mask is good or bad."""

from typing import Annotated, Literal

import numpy as np

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.features.projection import project
from seglens.methods.prototype._bank import BankMethod, bank_of, see
from seglens.methods.prototype._points import Points

Components = Annotated[int, Param("Principal components to show.", ge=2, le=3)]
Clusters = Annotated[Literal["kmeans", "dbscan"], Param("How clusters are found.")]
K = Annotated[int | None, Param("Clusters of k-means.", ge=2, le=50, empty="chosen by the silhouette")]
Eps = Annotated[
    float | None, Param("How far DBSCAN looks around.", gt=0, le=1e6, empty="the knee of the 4th neighbour's distance")
]
Examples = Annotated[int, Param("How many examples to name for each cluster.", ge=1, le=100)]
Most = Annotated[int, Param("Most entries to show, drawn by the seed.", ge=10, le=50_000)]


class BottleneckProjection(BankMethod):
    """Standardised features of a bank, principal components, k-means or DBSCAN on them, mean IoU over the plane.

    The bank says which layer is shown: build it at the bottleneck for what the publication shows. Components have the
    sign of their largest loading. The image's own objects get their place among the points, and with it the IoU that
    the nearest examples of known IoU have.
    """

    title = "Bottleneck projection"
    cite = "janik2019"
    survey = (184,)
    fidelity = Fidelity.AFTER
    scope = Scope.DATASET

    components: Components = 2
    clusters: Clusters = "kmeans"
    k: K = None
    eps: Eps = None
    examples: Examples = 5
    most: Most = 3000

    def run(self, case: Case) -> Explanation:
        """Points, clusters and their examples as tables, the plane as figures; the objects' cluster and likely IoU."""
        bank, seen = bank_of(case), see(case)
        found = project(
            bank, components=self.components, clusters=self.clusters, k=self.k, eps=self.eps, seed=case.run.seed,
            most=self.most, run=case.run,
        )  # fmt: skip
        points = Points(bank, found, seen)
        layers: tuple[Layer, ...] = (
            Layer(
                "cluster of each object",
                "labels",
                seen.painted(np.where(points.own < 0, found.k, points.own) + 1, np.int32),
            ),
            Layer("distance to the middle of its cluster", "heat", seen.painted(points.off), "standard deviations"),
            Layer("objects", "labels", seen.numbers.astype(np.int32)),
        )
        if found.plane is not None:
            layers = (Layer("IoU of the nearest examples", "heat", seen.painted(points.likely), "IoU"), *layers)
        return Explanation(layers, points.tables(self.examples), points.figures(), points.text())
