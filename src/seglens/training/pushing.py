"""Prototypes become pixels of training images (push), and those that stand for no class are dropped (prune)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.prototypes.records import cut, lit_box
from seglens.models.nets.proto_unet import ProtoUNet
from seglens.models.nets.unet import resized
from seglens.training.batches import encode
from seglens.training.data import Sample
from seglens.training.recipe import Recipe

NEIGHBOURS = 6  # images in which the pixel nearest to a prototype is looked at
OWN = 3  # of so many it has to be of the prototype's class
EDGE = 12  # pixels so near to the edge of an image see much that is not there, and their crops show little
FAR = 1e6  # what the edge adds to a squared distance: chosen only where there is nothing else

Likeness = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Seen:
    """A training image as the prototype layer sees it.

    Args:
        name: of the sample.
        features: (D, *s).
        labels: (*s) class at the pixel in the middle of each feature; -1 where nobody knows or the image has ended.
        stride: pixels of the image per feature, along each axis.
        edge: (*s) whether a feature is near the edge of the image.
    """

    name: str
    features: Tensor
    labels: Tensor
    stride: tuple[int, ...]
    edge: Tensor

    def position(self, place: int) -> list[int]:
        """The pixel of the image that a feature stands for, by the feature's number in reading order."""
        at = np.unravel_index(place, tuple(self.labels.shape))
        return [int(a) * step + step // 2 for a, step in zip(at, self.stride, strict=True)]

    def place(self, position: Sequence[int]) -> int:
        """The number of the feature at a pixel of the image."""
        at = [p // step for p, step in zip(position, self.stride, strict=True)]
        return int(np.ravel_multi_index(at, tuple(self.labels.shape)))


def labels_at(labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Class numbers (N, *space) at the resolution of features (N, *s): those of the pixel in the middle of each."""
    for axis, (size, full) in enumerate(zip(sizes, labels.shape[1:], strict=True), start=1):
        middle = (torch.arange(size, device=labels.device) * full + full // 2) // size
        labels = labels.index_select(axis, middle)
    return labels


def look(network: ProtoUNet, sample: Sample, recipe: Recipe) -> Seen:
    """A training image, whole and padded just as it is when the finished model looks at it."""
    batch = encode(sample, recipe)
    space, divisor = tuple(batch.labels.shape[1:]), network.divisor
    padding = [n for size in space for n in (-size % divisor, 0)][::-1]
    with torch.inference_mode():
        features = network.compared(F.pad(batch.image, padding, mode="replicate"))[0]
    labels = F.pad(batch.labels, padding, value=-1)
    sizes = tuple(features.shape[1:])
    stride = tuple(full // size for full, size in zip(labels.shape[1:], sizes, strict=True))
    edge = torch.ones(sizes, dtype=torch.bool)
    margins = [min(EDGE, n // 8) for n in space]
    inner = zip(margins, space, stride, strict=True)
    edge[tuple(slice(-(-margin // step), (n - margin) // step) for margin, n, step in inner)] = False
    return Seen(sample.name, features.clone(), labels_at(labels, sizes)[0], stride, edge)


def _all(network: ProtoUNet, samples: Sequence[Sample], recipe: Recipe, run: Run, text: str) -> Iterator[Seen]:
    for done, sample in enumerate(samples):
        run.progress(done, len(samples), text)
        yield look(network, sample, recipe)


def _squared(network: ProtoUNet, seen: Seen) -> Tensor:
    """Squared distances of all prototypes to all features (P, pixels)."""
    with torch.inference_mode():
        return network.head.similarity.distances(seen.features[None])[0].flatten(1).clone()


def likeness(network: ProtoUNet, samples: Sequence[Sample], recipe: Recipe, run: Run, of: Likeness) -> float:
    """Mean likeness of the prototypes of a class over whole training images; low is diverse."""
    head = network.head
    found = []
    for seen in _all(network, samples, recipe, run, "comparing prototypes"):
        distances = _squared(network, seen)
        found.append(float(of(distances[None], seen.labels.flatten()[None], head.owner, head.active)))
    return round(float(np.mean(found)), 4)


def push(network: ProtoUNet, samples: Sequence[Sample], recipe: Recipe, run: Run) -> dict[str, Any]:
    """Put the nearest feature of its own class in the place of each prototype; drop those that become the same.

    Pixels near the edge of an image are taken only where a class has no others. The weights of one that is dropped go
    to the one that it is the same as, so the logits stay what they are.

    Returns:
        ``pushed``: number, image, position and by how much each moved; ``duplicates``: the numbers dropped. A
        prototype whose class is in no training image stays as it is and is dropped, too.
    """
    head = network.head
    owner = head.owner.tolist()
    best: list[tuple[float, str, list[int], Tensor]] = [(float("inf"), "", [], torch.empty(0))] * len(owner)
    for seen in _all(network, samples, recipe, run, "push"):
        distances = _squared(network, seen) + FAR * seen.edge.flatten()
        own = seen.labels.flatten()[None] == head.owner[:, None]
        nearest, places = distances.masked_fill(~own, float("inf")).min(1)
        for j, (distance, place) in enumerate(zip(nearest.tolist(), places.tolist(), strict=True)):
            if distance < best[j][0]:
                vector = seen.features.flatten(1)[:, place].clone()
                best[j] = (distance, seen.name, seen.position(place), vector)
    pushed, duplicates, first = [], [], dict[Any, int]()
    with torch.no_grad():
        for j, (distance, name, position, vector) in enumerate(best):
            same = first.setdefault((owner[j], name, tuple(position)), j)
            if not name or same != j:
                head.active[j] = False
                duplicates.append(j + 1)
            if not name:
                continue
            head.prototypes[j] = vector
            if same != j:
                head.weight[:, same] += head.weight[:, j]
            pushed.append({"number": j + 1, "image": name, "position": position, "moved": round(distance % FAR, 5)})
    return {"pushed": pushed, "duplicates": duplicates}


def prune(network: ProtoUNet, samples: Sequence[Sample], recipe: Recipe, run: Run) -> dict[str, Any]:
    """Drop prototypes that are not of their class's kind: of the nearest pixels in six images three must be of it.

    The nearest pixel of each image counts, so that one image cannot vote for itself; the best prototype of a class
    always stays.

    Returns:
        ``pruned``: the numbers dropped; ``own``: of each prototype, how many of the nearest are of its own class.
    """
    head = network.head
    found: list[list[tuple[float, bool]]] = [[] for _ in head.owner]
    for seen in _all(network, samples, recipe, run, "prune"):
        labels = seen.labels.flatten()
        distances = _squared(network, seen).masked_fill((labels < 0)[None], float("inf"))
        nearest, places = distances.min(1)
        mine = labels[places] == head.owner
        for j, pair in enumerate(zip(nearest.tolist(), mine.tolist(), strict=True)):
            found[j].append(pair)
    own = [sum(mine for _, mine in sorted(pairs)[:NEIGHBOURS]) for pairs in found]
    pruned = []
    for c in sorted(set(head.owner.tolist())):
        members = [j for j in range(len(own)) if head.owner[j] == c and head.active[j]]
        stays = max(members, key=lambda j: own[j], default=-1)
        pruned += [j for j in members if j != stays and own[j] < min(OWN, len(samples))]
    head.active[pruned] = False
    return {"pruned": sorted(j + 1 for j in pruned), "own": own}


def records(
    network: ProtoUNet, pushed: Sequence[dict[str, Any]], samples: Sequence[Sample], recipe: Recipe
) -> list[dict[str, Any]]:
    """What is kept of where each prototype comes from: image, place, box and crop; by number."""
    by_name = {sample.name: sample for sample in samples}
    out = []
    for name in dict.fromkeys(one["image"] for one in pushed):
        sample, space = by_name[name], by_name[name].truth.shape
        seen = look(network, sample, recipe)
        full = [n * step for n, step in zip(seen.labels.shape, seen.stride, strict=True)]
        with torch.inference_mode():
            similar = resized(network.head.similarity(seen.features[None]), full)[0]
        opened = sample.opened or Image(sample.image, recipe.spec.axes + "C", name=name)
        for one in (o for o in pushed if o["image"] == name):
            near = similar[one["number"] - 1].numpy()[tuple(slice(0, n) for n in space)]
            box = lit_box(near, one["position"])
            out.append(
                {
                    "number": one["number"],
                    "image": opened.fingerprint(),
                    "name": opened.name,
                    "source": opened.source,
                    "position": one["position"],
                    "box": [list(part) for part in box],
                    "crop": cut(np.moveaxis(sample.image, -1, 0), box, one["position"]),
                }
            )
    return sorted(out, key=lambda record: int(record["number"]))
