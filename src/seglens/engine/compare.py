"""Several maps of one question: where they agree, and where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Method
from seglens.engine.artefacts import prepared
from seglens.engine.case import Case
from seglens.engine.turns import Turns

APART = "disagreement of fills"


def by_fill(method: Method, case: Case, fills: Sequence[str]) -> dict[str, Layer]:
    """The map of a method for each fill; those that it refuses are left out, with a note.

    Progress is that of all fills together, and answers on the way say where the maps until then differ.

    Raises:
        BadParameter: it refuses every fill.
    """
    run, maps = case.run, dict[str, Layer]()
    refused: BadParameter | None = None
    turns = Turns(run, len(fills))
    alone = replace(case, run=turns.run)
    for fill in fills:
        turns.next(fill)
        one = type(method).from_values(method.values() | {"fill": fill})
        try:
            maps[fill] = one.run(prepared(one, alone)).map
        except BadParameter as error:
            refused = error
            run.note(f"Left out: {error.what}")
        if len(maps) > 1 and turns.begun < len(fills):
            run.partial(lambda: _so_far(maps, len(fills)))
    if refused is not None and not maps:
        raise refused
    return maps


def disagreement(title: str, maps: Mapping[str, Layer], axes: str) -> Explanation:
    """How much maps (*space) of one method differ, per pixel and pair by pair.

    Args:
        title: of the method.
        maps: one per fill, all of one shape and unit.
        axes: of the maps, one letter each.

    Returns:
        The deviation over the maps (heat, in the unit of the maps), the maps, and a table: per fill its rank
        correlation with the mean of the others and its strongest place.
    """
    stack = np.stack([layer.data for layer in maps.values()]).astype(np.float64)
    first = next(iter(maps.values()))
    spread = _spread(maps)
    alike = [_ranked(one, np.delete(stack, i, 0).mean(0)) if len(stack) > 1 else 1.0 for i, one in enumerate(stack)]
    places = [
        ", ".join(f"{a} {p}" for a, p in zip(axes, np.unravel_index(one.argmax(), one.shape), strict=True))
        for one in stack
    ]
    table = Table("fills", {"fill": list(maps), "rank correlation with the others": alike, "strongest at": places})
    where = np.unravel_index(int(spread.argmax()), spread.shape)
    told = ", ".join(f"{a} {p}" for a, p in zip(axes, where, strict=True))
    verdict = "they tell the same" if min(alike) > 0.8 else "the answer depends on what covered pixels are filled with"
    text = (
        f"{title} with {len(maps)} fills: rank correlation with the others from {min(alike):.2f} to {max(alike):.2f}, "
        f"so {verdict}. They differ most at {told}."
    )
    layers = (
        Layer(APART, "heat", spread, first.unit),
        *(Layer(f"filled with {name}", m.kind, m.data, m.unit) for name, m in maps.items()),
    )
    return Explanation(layers, (table,), text=text)


def _so_far(maps: Mapping[str, Layer], total: int) -> Explanation:
    unit = next(iter(maps.values())).unit
    return Explanation((Layer(APART, "heat", _spread(maps), unit),), text=f"{len(maps)} of {total} fills.")


def _spread(maps: Mapping[str, Layer]) -> NDArray[np.float32]:
    deviation = np.stack([layer.data for layer in maps.values()]).astype(np.float64).std(0)
    return np.asarray(deviation, dtype=np.float32)


def _ranked(one: np.ndarray, other: np.ndarray) -> float:
    a, b = rankdata(one.ravel()), rankdata(other.ravel())
    if a.std() == 0 or b.std() == 0:
        return float(np.array_equal(a, b))
    return float(np.corrcoef(a, b)[0, 1])
