"""Prototypes and criticisms: the few examples that stand for a class, and those that they stand for badly."""

from typing import Annotated, Literal

import numpy as np

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.methods.prototype._bank import BankMethod, bank_of, see
from seglens.methods.prototype._critic import Critic, chosen_rows

Prototypes = Annotated[int, Param("How many prototypes.", ge=1, le=500, quick=3)]
Criticisms = Annotated[int, Param("How many criticisms, and how many that are far from every prototype.", ge=1, le=500)]
Gamma = Annotated[
    float | None,
    Param("Width of the kernel exp(-γ d²).", gt=0, le=1e9, empty="1 over the median squared distance"),
]
Diverse = Annotated[bool, Param("Choose criticisms that are unlike each other (by the determinant of their kernel).")]
Which = Annotated[Literal["class", "all"], Param("Entries predicted as the target's class, or all.")]
Groups = Annotated[str | None, Param("Only groups whose name holds this (a regular expression).", empty="all groups")]
Most = Annotated[int, Param("Most entries to compare, drawn by the seed.", ge=10, le=10_000)]


class PrototypesAndCriticisms(BankMethod):
    """MMD-critic over the features of a bank: prototypes by greedy steps of the exact gain, criticisms by |witness|.

    A criticism is where the prototypes badly represent how dense the examples are. A lone outlier is none (its
    |witness| is about 1/n), so that entries far from every prototype are a list of their own.
    """

    title = "Prototypes and criticisms"
    cite = "kim2016"
    survey = (22,)
    fidelity = Fidelity.EXACT
    scope = Scope.DATASET

    prototypes: Prototypes = 10
    criticisms: Criticisms = 10
    gamma: Gamma = None
    diverse: Diverse = True
    of: Which = "class"
    groups: Groups = None
    most: Most = 3000

    def run(self, case: Case) -> Explanation:
        """Three lists of rows of the bank; of every object how far it is from the prototypes, and from which."""
        bank, seen = bank_of(case), see(case)
        rows = chosen_rows(case, case.target.name if self.of == "class" else None, self.groups, self.most)
        critic = Critic.of(bank.vectors(rows), self.gamma, self.prototypes, self.criticisms, self.diverse, case.run)
        far, nearest = critic.nearest(seen.vectors)
        layers = (
            Layer("distance to the nearest prototype", "heat", seen.painted(far), "distance of features"),
            Layer("badly represented", "signed", seen.painted(critic.witness_at(seen.vectors)), "witness"),
            Layer("number of the nearest prototype", "labels", seen.painted(nearest + 1, np.int32)),
        )
        return Explanation(layers, critic.tables(bank, rows), critic.figures(), critic.text(len(rows), self.of, case))
