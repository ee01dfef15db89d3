"""What methods on a feature bank share: the asked image's objects as embeddings, and rows with where they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.method import Method, Need
from seglens.engine.case import Case
from seglens.engine.features import Entry, FeatureBank, check_bank
from seglens.engine.features.regions import sums_over
from seglens.engine.target import objects

Floats = NDArray[np.floating[Any]]


class BankMethod(Method):
    """A method that looks things up in a bank; it explains objects, by the features of the bank's layer."""

    needs = frozenset({Need.BANK, Need.LAYER})
    places = False
    locates = False

    def check(self, case: Case) -> None:
        """Raise ModelMismatch if the bank is of another model, MissingNeed if it is empty."""
        case.layer(bank_of(case).info.layer)

    def passes(self, case: Case) -> tuple[float, int]:
        """One: the bank is there already."""
        return 1.0, 1


def bank_of(case: Case) -> FeatureBank:
    """The case's bank.

    Raises:
        MissingNeed: there is none, or it is empty.
        ModelMismatch: it is of another model.
    """
    check_bank(case.bank, case)
    if case.bank is None:
        raise MissingNeed("No feature bank was given.", fix="Give one (--bank DIR).")
    return case.bank


@dataclass(frozen=True, eq=False)
class Seen:
    """The asked image through the bank's layer; one forward pass.

    Args:
        numbers: the predicted objects as ``--object`` counts them, 0 elsewhere (*space).
        names: the class of each (n).
        vectors: their embeddings (n, D), without any (0, D).
        region: that of the pixels that the target counts (D,).
    """

    numbers: NDArray[np.int32]
    names: list[str]
    vectors: NDArray[np.float32]
    region: NDArray[np.float32]

    def painted(self, values: Sequence[Any] | NDArray[Any], dtype: Any = np.float32) -> NDArray[Any]:
        """A number per object as a map (*space), 0 where there is none."""
        table = np.zeros(len(self.names) + 1, dtype)
        table[1:] = values
        return table[self.numbers]


def see(case: Case) -> Seen:
    """Embed the image's objects and the target's region, by the definition that the bank was built with."""
    labels, weights = case.labels, case.target.weights.cpu().numpy()
    numbers = objects(labels)
    count = int(numbers.max(initial=0))
    region = weights > 0 if (weights > 0).any() else weights != 0
    activation, padded = case.activation(bank_of(case).info.layer), case.model.padded(case.shape)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    found = sums_over(activation, numbers, count, padded) if count else np.zeros((0, activation.shape[1]))
    own = sums_over(activation, region.astype(np.int64), 1, padded)[0] / region.sum()
    first = np.unique(numbers, return_index=True)[1]
    names = [case.model.spec.classes[labels.flat[at]].name for at in first if numbers.flat[at] > 0]
    return Seen(numbers, names, (found / sizes[:, None]).astype(np.float32), own.astype(np.float32))


def provenance(bank: FeatureBank, rows: Sequence[int] | NDArray[Any]) -> dict[str, list[Any]]:
    """Columns that say of rows of a bank what and where they are; ``row`` is their number in the bank."""
    entries = bank.entries(rows)
    axes = bank.info.axes
    return {
        "row": [int(r) for r in rows],
        "image": [e.name for e in entries],
        "position": [_place(e, axes) for e in entries],
        "box": [", ".join(f"{a} {s}:{t}" for a, (s, t) in zip(axes, e.box, strict=True)) for e in entries],
        "predicted": [e.predicted for e in entries],
        "truth": [e.truth for e in entries],
        "IoU": [e.iou for e in entries],
        "group": [e.group for e in entries],
    }


def fitting(bank: FeatureBank, pattern: str) -> tuple[str, ...]:
    """Groups of a bank in whose name an expression is found.

    Raises:
        BadParameter: it is no regular expression, or fits none.
    """
    try:
        found = tuple(g for g in bank.groups() if re.search(pattern, g))
    except re.error as error:
        raise BadParameter(
            f"{pattern!r} is not a regular expression: {error}.", fix="Use a part of a group's name."
        ) from error
    if not found:
        known = ", ".join(bank.groups()[:5])
        raise BadParameter(f"No group of the bank fits {pattern!r}.", fix=f"Its groups are: {known}.")
    return found


def _place(entry: Entry, axes: str) -> str:
    at = {**entry.select, **dict(zip(axes, entry.position, strict=True))}
    return ", ".join(f"{axis} {value}" for axis, value in at.items())
