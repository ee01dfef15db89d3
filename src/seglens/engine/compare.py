"""Several maps of one question: where they agree, and where not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from seglens.core.explanation import Explanation, Layer, Table


def disagreement(title: str, maps: Mapping[str, Layer]) -> Explanation:
    """How much maps (*space) of one method differ, per pixel and pair by pair.

    Args:
        title: of the method.
        maps: one per fill, all of one shape and unit.

    Returns:
        The deviation over the maps (heat, in the unit of the maps), the maps, and a table: per fill its rank
        correlation with the mean of the others and its strongest place.
    """
    stack = np.stack([layer.data for layer in maps.values()]).astype(np.float64)
    first = next(iter(maps.values()))
    spread = stack.std(0).astype(np.float32)
    alike = [_ranked(one, np.delete(stack, i, 0).mean(0)) if len(stack) > 1 else 1.0 for i, one in enumerate(stack)]
    places = [
        ", ".join(
            f"{a} {p}" for a, p in zip("ZYX"[-one.ndim :], np.unravel_index(one.argmax(), one.shape), strict=True)
        )
        for one in stack
    ]
    table = Table("fills", {"fill": list(maps), "rank correlation with the others": alike, "strongest at": places})
    where = np.unravel_index(int(spread.argmax()), spread.shape)
    told = ", ".join(f"{a} {p}" for a, p in zip("ZYX"[-spread.ndim :], where, strict=True))
    verdict = "they tell the same" if min(alike) > 0.8 else "the answer depends on what covered pixels are filled with"
    text = (
        f"{title} with {len(maps)} fills: rank correlation with the others from {min(alike):.2f} to {max(alike):.2f}, "
        f"so {verdict}. They differ most at {told}."
    )
    layers = (
        Layer("disagreement of fills", "heat", spread, first.unit),
        *(Layer(f"filled with {name}", m.kind, m.data, m.unit) for name, m in maps.items()),
    )
    return Explanation(layers, (table,), text=text)


def _ranked(one: np.ndarray, other: np.ndarray) -> float:
    a, b = rankdata(one.ravel()), rankdata(other.ravel())
    if a.std() == 0 or b.std() == 0:
        return float(np.array_equal(a, b))
    return float(np.corrcoef(a, b)[0, 1])
