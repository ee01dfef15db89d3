"""Rules of the form IF a pixel is like this one THEN it is of that class: learned, printed, and evaluated (card A/B2).

Numbers are float32 and printed so that reading them gives the same float32 again: what is printed is what decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import kmeans_plusplus

from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.image import Image
from seglens.engine.case import Case
from seglens.engine.channels import stages
from seglens.models.intake import fit_intake, read_plain

Rows = NDArray[np.float32]

AT_ONCE = 2**15  # pixels that are compared at a time
STARTS = 4096  # rows among which the first centres are chosen

_PAIR = re.compile(r'("(?:[^"\\]|\\.)*") (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)')
_CLASS = re.compile(r'THEN ("(?:[^"\\]|\\.)*")$')


@dataclass(frozen=True, eq=False)
class Pixels:
    """The values of an image's pixels, and the class that the network gives them.

    Args:
        image: where they are.
        names: of the values.
        values: (n, D).
        labels: (n,).
        shape: (*space), with n pixels.
    """

    image: Image
    names: tuple[str, ...]
    values: Rows
    labels: NDArray[np.uint8]
    shape: tuple[int, ...]


def look(case: Case, intensities: bool, layer: str | None) -> Pixels:
    """Pixels of the image as the rules see them: intensities as they are in the file, a layer's channels enlarged."""
    names: list[str] = []
    parts = []
    if intensities:
        names += case.model.spec.channels
        parts.append(read_plain(case.image, case.model.spec).reshape(len(names), -1))
    if layer is not None:
        full = case.enlarged(case.activation(layer))[0].flatten(1).cpu().numpy()
        names += [f"{layer}[{channel}]" for channel in range(len(full))]
        parts.append(full)
    values = np.ascontiguousarray(np.concatenate(parts).T, np.float32)
    return Pixels(case.image, tuple(names), values, case.labels.ravel(), case.shape)


def also(case: Case, image: Image) -> Case:
    """The same case about a reference: only its pixels and what the network draws there may be asked for."""
    intake = fit_intake(image, case.model.spec)
    x = torch.from_numpy(intake.to_input(read_plain(image, case.model.spec)))[None].to(case.x)
    return replace(case, image=image, intake=intake, x=x, logits=case.forward(x).clone())


def last_layer(case: Case, wanted: str | None) -> str:
    """The layer's name; without one, the last depth before the answer.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript.
        UnknownName: there is no such layer.
    """
    if not case.model.layered:
        raise MissingNeed(
            f"Rules were to be made of a layer, and the layers of {case.model.spec.name} cannot be reached.",
            fix="Use --features intensities.",
        )
    case.run.check()
    return stages(case.model)[-1].name if wanted is None else case.layer(wanted)


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


def learn(case: Case, seen: Sequence[Pixels], count: int, batch: int, steps: int, pixels: int) -> RuleSet:
    """Prototypes of every class that the network draws, by mini-batch k-means; each the real pixel next to a centre.

    Args:
        case: progress and seed.
        seen: the image's pixels, then those of references.
        count: prototypes of a class, at most.
        batch, steps: of the k-means.
        pixels: of a class and image that are looked at, at most.
    """
    rng = np.random.default_rng(case.run.seed)
    classes = np.unique(np.concatenate([np.unique(one.labels) for one in seen])).tolist()
    drawn = {k: [_some(np.flatnonzero(one.labels == k), pixels, rng) for one in seen] for k in classes}
    every = np.concatenate([one.values[at] for k in classes for one, at in zip(seen, drawn[k], strict=True)])
    scale = every.std(0, dtype=np.float64).astype(np.float32)
    scale[scale <= 1e-6 * np.abs(every).max(0)] = 1
    found: list[Prototype] = []
    for done, k in enumerate(classes):
        case.run.progress(done, len(classes), "classes")
        owner = np.repeat(np.arange(len(seen)), [len(at) for at in drawn[k]])
        places = np.concatenate(drawn[k])
        raw = np.concatenate([one.values[at] for one, at in zip(seen, drawn[k], strict=True)])
        rows = raw.astype(np.float64) / scale
        centres = k_means(rows, count, batch, steps, rng)
        for row in dict.fromkeys(cdist(centres, rows, "sqeuclidean").argmin(1).tolist()):
            home = seen[owner[row]]
            position = tuple(int(n) for n in np.unravel_index(places[row], home.shape))
            own = owner[row] == 0
            found.append(Prototype(len(found) + 1, k, home.image.name, bool(own), position, raw[row]))
    return RuleSet(seen[0].names, scale, tuple(found))


def _some(places: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.sort(rng.choice(places, most, replace=False)) if len(places) > most else places


def k_means(
    rows: NDArray[np.float64], count: int, batch: int, steps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Centres (k, D) of rows (n, D) by mini-batches; k is ``count``, or as many as there are different rows."""
    start = _first(rows, count, rng)
    counts = np.zeros(len(start))
    for _ in range(steps):
        some = rows if batch >= len(rows) else rows[rng.integers(len(rows), size=batch)]
        start, counts = updated(start, counts, some)
    return start


def _first(rows: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    some = np.unique(rows if len(rows) <= STARTS else rows[rng.integers(len(rows), size=STARTS)], axis=0)
    centres, _ = kmeans_plusplus(some, min(count, len(some)), random_state=int(rng.integers(2**31)))
    return np.asarray(centres, np.float64)


def updated(
    centres: NDArray[np.float64], counts: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (k, D) after a batch of rows, and how many rows each has seen (k,).

    Each row x of a centre c that has seen n moves it to n/(n+1) c + x/(n+1), one after the other: in the end the mean
    of all it has seen, which is written here at once. A centre that has seen nothing becomes the mean of its rows.
    """
    nearest = cdist(rows, centres, "sqeuclidean").argmin(1)
    new = np.bincount(nearest, minlength=len(centres)).astype(np.float64)
    sums = np.zeros_like(centres)
    np.add.at(sums, nearest, rows)
    total = counts + new
    moved = (counts[:, None] * centres + sums) / np.maximum(total, 1)[:, None]
    return np.where(new[:, None] > 0, moved, centres), total
