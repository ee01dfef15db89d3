"""Rules of the form IF a pixel is like this one THEN it is of that class: printed, read and replayed (card A/B2).

Numbers are float32 and printed so that reading them gives the same float32 again: what is printed is what decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from seglens.core.errors import BadParameter

Rows = NDArray[np.float32]

AT_ONCE = 2**15  # pixels that are compared at a time

_PAIR = re.compile(r'("(?:[^"\\]|\\.)*") (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)')
_CLASS = re.compile(r'THEN ("(?:[^"\\]|\\.)*")$')


@dataclass(frozen=True, eq=False)
class Prototype:
    """A real pixel that stands for its class.

    Args:
        number: from 1.
        label: the class.
        image: name of the image it is in.
        own: it is in the image that is explained.
        position: along the model's axes, in pixels.
        values: (D,).
    """

    number: int
    label: int
    image: str
    own: bool
    position: tuple[int, ...]
    values: Rows


@dataclass(frozen=True, eq=False)
class RuleSet:
    """Prototypes, and how pixels are compared with them.

    Args:
        names: of the values.
        scale: (D,) what differences are divided by.
        prototypes: in the order of their classes.
    """

    names: tuple[str, ...]
    scale: Rows
    prototypes: tuple[Prototype, ...]

    def printed(self, axes: str, classes: Sequence[str]) -> list[str]:
        """How likeness is measured, and one line for each prototype."""
        pairs = _pairs(self.names, self.scale)
        lines = [
            f"LIKENESS 1 / (1 + mean of ((value - prototype) / scale)^2); scale: {pairs}. A pixel is of the class of "
            "the prototype that it is most like, of equals the first."
        ]
        for p in self.prototypes:
            at = " ".join(f"{axis}={n}" for axis, n in zip(axes, p.position, strict=True))
            lines.append(
                f"IF pixel ~ prototype {p.number} ({json.dumps(p.image)} at {at}: {_pairs(self.names, p.values)}) "
                f"THEN {json.dumps(classes[p.label])}"
            )
        return lines

    def without(self, told: str) -> RuleSet:
        """The same without the prototypes of some numbers, told as ``3,7``.

        Raises:
            BadParameter: no such prototype, or none would be left.
        """
        words = [word.strip() for word in told.split(",") if word.strip()]
        known = {str(p.number) for p in self.prototypes}
        wrong = [word for word in words if word not in known]
        kept = tuple(p for p in self.prototypes if str(p.number) not in words)
        if wrong or not kept:
            what = f"There is no prototype {wrong[0]!r}." if wrong else "No prototype would be left."
            raise BadParameter(what, fix=f"Name some of the numbers 1 to {len(self.prototypes)}, such as 3,7.")
        return replace(self, prototypes=kept)


def _pairs(names: Sequence[str], values: Rows) -> str:
    return ", ".join(f"{json.dumps(name)} {np.float32(v)!s}" for name, v in zip(names, values, strict=True))


def read(rules: Sequence[str]) -> tuple[tuple[str, ...], Rows, Rows, list[str]]:
    """What printed rules say: names of the values, their scale (D,), prototypes (M, D) and the class of each."""
    told = [[(json.loads(name), np.float32(value)) for name, value in _PAIR.findall(line)] for line in rules]
    numbers = [np.array([value for _, value in pairs], np.float32) for pairs in told]
    ends = [_CLASS.search(line) for line in rules[1:]]
    whole = all(end is not None and len(n) == len(numbers[0]) for end, n in zip(ends, numbers[1:], strict=True))
    if len(rules) < 2 or not rules[0].startswith("LIKENESS") or not whole:
        raise BadParameter("These are not rules as they are printed.", fix="Give all lines of the table of rules.")
    classes = [json.loads(end.group(1)) for end in ends if end is not None]
    return tuple(name for name, _ in told[0]), numbers[0], np.stack(numbers[1:]), classes


def replay(rules: Sequence[str], values: Rows) -> NDArray[np.str_]:
    """The classes that printed rules give to pixels; nothing but the rules and the pixels is looked at.

    Args:
        rules: all lines, as :meth:`RuleSet.printed` printed them.
        values: (n, D) of the pixels, in the order of the rule of likeness.

    Returns:
        (n,) names of classes.

    Raises:
        BadParameter: these are no such rules, or they speak of other values.
    """
    names, scale, prototypes, classes = read(rules)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise BadParameter(
            f"Pixels have shape {values.shape}, and the rules speak of {len(names)} values each.",
            fix=f"Give for each pixel {', '.join(names)}.",
        )
    winners = np.concatenate([d.argmin(1) for d in distances(values, scale, prototypes)])
    chosen: NDArray[np.str_] = np.array(classes)[winners]
    return chosen


def distances(values: Rows, scale: Rows, prototypes: Rows) -> list[NDArray[np.float64]]:
    """Mean squared scaled differences of pixels (n, D) to prototypes (M, D): parts of (n, M), in order."""
    near = prototypes.astype(np.float64) / scale
    parts = (values[i : i + AT_ONCE].astype(np.float64) / scale for i in range(0, len(values), AT_ONCE))
    return [cdist(part, near, "sqeuclidean") / len(scale) for part in parts]
