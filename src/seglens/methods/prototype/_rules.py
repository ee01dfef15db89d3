"""Prototypes for rules: pixels as they are compared, and mini-batch k-means among them (card A/B2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import kmeans_plusplus

from seglens.core.errors import MissingNeed
from seglens.core.image import Image
from seglens.engine.case import Case
from seglens.engine.channels import stages
from seglens.engine.clean import Clean
from seglens.engine.printed_rules import Prototype, Rows, RuleSet
from seglens.models.intake import fit_intake, read_plain

STARTS = 4096  # rows among which the first centres are chosen


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
    return replace(case, image=image, intake=intake, clean=Clean(case.model, x, case.clean.asked, case.run))


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
