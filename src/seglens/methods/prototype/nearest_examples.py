"""Nearest examples: the examples in a bank that look most like this object to the network, and of another class."""

from typing import Annotated, Literal

import numpy as np

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.features.likeness import likeness
from seglens.methods.prototype._bank import BankMethod, bank_of, see
from seglens.methods.prototype._neighbours import Lookup, Told

K = Annotated[int, Param("How many examples to show.", ge=1, le=200)]
Metric = Annotated[
    Literal["cosine", "euclidean"], Param("How the distance is measured: by the direction of features, or in full.")
]
Own = Annotated[bool, Param("Leave out the group of the asked image, so that nothing of the same slide is found.")]
LeaveOut = Annotated[str | None, Param("Leave out groups whose name holds this (a regular expression).", empty="none")]


class NearestExamples(BankMethod):
    """Mean features over the region, and the bank's entries nearest to them.

    An entry's class is that of the mask where one is known, and the predicted one elsewhere. The vote entropy is
    that of the classes of the nearest examples, in bits: 0 where all agree.
    """

    title = "Nearest examples"
    cite = "nguyen2021"
    survey = (46,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION

    k: K = 5
    metric: Metric = "cosine"
    own_group: Own = False
    leave_out: LeaveOut = None

    def passes(self, case: Case) -> tuple[float, int]:
        """The objects, and where else it looks like the nearest example."""
        return 2.0, 2

    def run(self, case: Case) -> Explanation:
        """Examples and examples of another class as tables; of every object how far the nearest other example is."""
        bank, seen = bank_of(case), see(case)
        lookup = Lookup(case, bank, self.metric, self.own_group, self.leave_out)
        near = lookup.nearest(seen.region[None], self.k)
        told = Told(lookup, near, lookup.contrast(seen, self.k))
        far, entropy = lookup.of_objects(seen, self.k)
        layers: tuple[Layer, ...] = (
            Layer("distance to the nearest other example", "heat", seen.painted(far), f"{self.metric} distance"),
            Layer("vote entropy", "heat", seen.painted(entropy), "bit"),
            Layer("objects", "labels", seen.numbers.astype(np.int32)),
        )
        if near.rows[0, 0] >= 0:
            like = likeness(case, bank.info.layer, bank.vectors(near.rows[0, :1])[0])
            layers += (Layer("likeness to the nearest example", "signed", like, "cosine"),)
        return Explanation(layers, told.tables(), (told.figure(),), told.text())
