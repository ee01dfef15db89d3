"""Concept vectors: concepts as directions at a layer, and whether what the model drew follows them beyond chance."""

from typing import Annotated, Literal

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Need, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.features.concepts import LEAST
from seglens.methods.prototype._bank import BankMethod, bank_of
from seglens.methods.prototype._discovery import discover, parse_rows
from seglens.methods.prototype._sensitivity import examples
from seglens.methods.prototype._verdicts import Tested

Clusters = Annotated[Literal["kmeans", "dbscan"], Param("How clusters of the projection are found.")]
K = Annotated[int | None, Param("Clusters of k-means.", ge=2, le=50, quick=2, empty="chosen by the silhouette")]
Rows = Annotated[
    str | None, Param("Rows of the bank that are one concept, such as 3,5,8-20 (a lasso's).", empty="clusters")
]
Repeats = Annotated[int, Param("Random sets that each concept is told from.", ge=5, le=500, quick=6)]
Examples = Annotated[int, Param("How many regions of the class to follow.", ge=1, le=1000, quick=4)]
Over = Annotated[Literal["objects", "images"], Param("What an example is: an object, or all of the class in an image.")]


class ConceptVectors(BankMethod):
    """D-TCAV: clusters of a bank, chosen rows or painted regions are concepts; their vectors are linear classifiers.

    Painted concepts come from the annotation, one for each of its numbers. Without it and without rows, every
    cluster of the projection is a concept. The sensitivity is the target's derivative when the vector is added to
    the layer's answer everywhere; the score is the share of examples in which it is positive. A concept is
    significant if its scores differ from those of random vectors (Welch's t-test, Bonferroni) and the target's
    change on the way to the concept is larger than for 95 % of the random vectors.
    """

    title = "Concept vectors (D-TCAV)"
    cite = "janik2021"
    survey = (116,)
    fidelity = Fidelity.AFTER
    scope = Scope.REGION
    needs = frozenset({Need.BANK, Need.LAYER, Need.GRADIENT})
    takes = frozenset({Need.ANNOTATION, Need.REFERENCE})

    clusters: Clusters = "kmeans"
    k: K = None
    rows: Rows = None
    repeats: Repeats = 20
    examples: Examples = 30
    over: Over = "objects"

    def check(self, case: Case) -> None:
        """Raise also BadParameter if the rows are no rows of the bank, MissingNeed if they are too few."""
        super().check(case)
        if self.rows is not None:
            bank_of(case).check_rows(parse_rows(self.rows, LEAST))

    def passes(self, case: Case) -> tuple[float, int]:
        """Forward and back for every example, where a pass back is about two forwards; and the map."""
        return 1.0 + 3 * self.examples, 1 + 3 * self.examples

    def run(self, case: Case) -> Explanation:
        """A map per concept, and scores with their errors and significance; of every example its sensitivity."""
        layer = bank_of(case).info.layer
        found = discover(case, self.clusters, self.k, self.rows, self.repeats)
        tested = Tested.of(case, found, examples(case, layer, self.examples, self.over))
        return Explanation(tested.layers(layer), tested.tables(), (tested.figure(),), tested.text(layer))
