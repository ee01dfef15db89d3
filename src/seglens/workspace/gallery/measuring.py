"""What a gallery says about an image: which item explains which share of it, and what comes from that very image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import MissingNeed, ModelMismatch
from seglens.core.files import SAMPLE
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.workspace.gallery.item import Item
from seglens.workspace.gallery.looking import Looking

if TYPE_CHECKING:
    from seglens.engine.prototypes import PrototypeEdit
    from seglens.models.segmentation import SegmentationModel

BATCH = 1024  # items compared at once


@dataclass(frozen=True)
class Share:
    """What one item explains.

    Args:
        item: its number; ``None`` for pixels that none explains.
        pixels: how many.
        share: of all pixels that were asked about.
    """

    item: int | None
    pixels: int
    share: float


def shares(
    winners: NDArray[Any], pixels: NDArray[Any] | None = None, items: Mapping[int, int] | None = None
) -> list[Share]:
    """Shares by winner, the largest first, those that none explains last.

    Args:
        winners: whole numbers of any shape: per pixel (or object) which prototype or item won; 0 and less is none.
        pixels: of the same shape: what each counts; by default 1.
        items: which item a number stands for; by default it is the item's. A number that is not among them is none.
    """
    flat = np.asarray(winners).ravel()
    counts = np.ones(len(flat), np.int64) if pixels is None else np.asarray(pixels).ravel()
    numbers, place = np.unique(flat, return_inverse=True)
    sums = np.bincount(place, counts, minlength=len(numbers))
    found: dict[int | None, int] = {}
    for number, count in zip(numbers.tolist(), sums.tolist(), strict=True):
        item = None if number <= 0 else number if items is None else items.get(number)
        found[item] = found.get(item, 0) + int(count)
    total = max(1, sum(found.values()))
    told = [Share(item, count, count / total) for item, count in found.items() if count]
    return sorted(told, key=lambda one: (one.item is None, -one.pixels, one.item or 0))


def nearest_items(gallery: Looking, vectors: NDArray[Any]) -> NDArray[np.int64]:
    """The kept item nearest to each embedding, by cosine; an item that was merged counts for what it is a part of.

    Args:
        gallery: whose items have vectors of the same layer.
        vectors: (n, D).

    Returns:
        (n,) numbers of items.

    Raises:
        MissingNeed: no kept item has a vector of this size.
    """
    vectors = np.asarray(vectors, np.float32)
    best, winner = np.full(len(vectors), -np.inf), np.zeros(len(vectors), np.int64)
    own = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    goals = {item.id: item.id for item in gallery.items(status="kept")}
    goals |= {i.id: goals[i.merged_into] for i in gallery.items(status="merged") if i.merged_into in goals}
    known = ((n, v) for n, v in gallery.vectors() if n in goals and v.shape == vectors.shape[1:])
    found = False
    while some := list(islice(known, BATCH)):
        found = True
        theirs = np.stack([vector for _, vector in some])
        likeness = own @ (theirs / np.maximum(np.linalg.norm(theirs, axis=1, keepdims=True), 1e-12)).T
        place = likeness.argmax(1)
        highest = likeness[np.arange(len(own)), place]
        nearer = highest > best
        best[nearer] = highest[nearer]
        winner[nearer] = np.array([goals[number] for number, _ in some])[place[nearer]]
    if not found:
        raise MissingNeed(
            f"No kept item of {gallery.folder.name} has an embedding of {vectors.shape[1]} numbers to compare with.",
            fix="Make the gallery from a feature bank of this model, or add items with the model (--model).",
        )
    return winner


def coverage(gallery: Looking, model: SegmentationModel, image: Image, run: Run | None = None) -> list[Share]:
    """Which share of the pixels of an image each item explains.

    In a gallery of a prototype network every pixel counts, for the prototype that brings most to its class after the
    gallery's edits. In one of a feature bank the pixels of the predicted objects count, for the nearest kept item.

    Raises:
        ModelMismatch: the gallery is of another model.
        MissingNeed: it has no vectors to compare with.
        ImageMismatch: the image does not fit the model.
    """
    from seglens.engine.prototypes import PrototypeView

    run = run or Run()
    check_model(gallery, model)
    if not gallery.info.layer:
        view = PrototypeView(model, image, run)
        edit, items = edit_of(gallery, model)
        return shares(view.winners(edit), items=items)
    numbers, vectors = _objects(model, image, gallery.info.layer, run)
    pixels = np.bincount(numbers.ravel())[1:]
    return shares(nearest_items(gallery, vectors), pixels) if len(vectors) else []


def edit_of(gallery: Looking, model: SegmentationModel) -> tuple[PrototypeEdit, dict[int, int]]:
    """The state of a gallery as an edit of its prototype network, and the item of each prototype by number.

    Raises:
        MissingNeed: the model is no prototype network.
        ModelMismatch: the gallery is of another model.
    """
    from seglens.engine.prototypes import Added, PrototypeEdit, check_prototypes

    check_model(gallery, model)
    head = check_prototypes(model)
    names = [c.name for c in model.spec.classes]
    owners = {n: names[owner] for n, owner in enumerate(head.owner.tolist(), 1)}
    items = {item.id: item for item in gallery.items()}
    own = {item.prototype: item for item in items.values() if item.prototype in owners}
    merged: list[tuple[int, int]] = []
    for number, item in own.items():
        goal = items.get(item.merged_into or 0)
        if goal is not None and goal.status == "kept" and goal.prototype in own:
            merged.append((number, goal.prototype))
    parts = dict(merged)
    dropped = frozenset(n for n, item in own.items() if item.status != "kept" and n not in parts)
    relabelled = tuple((n, item.label) for n, item in own.items() if item.label != owners[n])
    fresh = [
        (item, vector)
        for item in items.values()
        if item.prototype is None and item.status == "kept" and (vector := gallery.vector(item.id)) is not None
        and vector.shape == (head.prototypes.shape[1],)
    ]  # fmt: skip
    added = tuple(Added(vector, item.label, _record(gallery, item)) for item, vector in fresh)
    numbers = {n: item.id for n, item in own.items()}
    numbers |= {n: item.id for n, (item, _) in enumerate(fresh, len(owners) + 1)}
    return PrototypeEdit(dropped, tuple(merged), relabelled, added), numbers


def leaks(gallery: Looking, image: Image | str, group: str | None = None) -> list[Item]:
    """Items that count and come from an image, or from its slide, patient or file: what they say of it is no proof.

    Args:
        gallery: whose items are looked at; dropped ones do not count.
        image: the image asked about, or its fingerprint.
        group: its group; of an image, by default that which the gallery's rule gives.
    """
    from seglens.engine.features import group_of

    fingerprint, source = image if isinstance(image, str) else image.fingerprint(), ""
    if isinstance(image, Image):
        source = image.source
        if source and not source.startswith(SAMPLE):
            source = str(Path(source).expanduser().absolute())
        group = group or group_of(image.source or image.name, gallery.info.group, strict=False)
    return [
        item for item in gallery.items()
        if item.status != "dropped"
        and (item.image == fingerprint or (source and item.source == source) or (group and item.group == group))
    ]  # fmt: skip


def check_model(gallery: Looking, model: SegmentationModel) -> None:
    """Raise ``ModelMismatch`` if a gallery is of another model, ``MissingNeed`` if it is of none."""
    info = gallery.info
    if not info.model_sha256:
        raise MissingNeed(
            f"The gallery {gallery.folder.name} is of no model, so that nothing can be compared.",
            fix="Make one from a prototype network or a feature bank: seglens gallery make.",
        )
    if info.model_sha256 != model.fingerprint():
        raise ModelMismatch(
            f"The gallery {gallery.folder.name} is of the model {info.model}, not of this {model.spec.name}.",
            fix=f"Use the model {info.model_source or info.model}, or make a gallery of this one.",
        )


def _record(gallery: Looking, item: Item) -> dict[str, Any]:
    told = {"image": item.image, "name": item.name, "source": item.source, "position": list(item.position)}
    png = gallery.png(item.id)
    crop = np.zeros((0, 0), np.uint8) if png is None else gallery.crop(item.id)
    return told | {"box": [list(part) for part in item.box], "crop": crop}


def _objects(model: SegmentationModel, image: Image, layer: str, run: Run) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The predicted objects by number (*space), and the embedding of each (n, D)."""
    from seglens.core.target import Box, Target
    from seglens.engine.features import region_vectors
    from seglens.engine.resolve import resolve
    from seglens.engine.target import objects
    from seglens.models.segmentation import quiet

    with quiet(model.module):
        size = image.space(model.spec.axes)
        # whatever is drawn: a class that is not there would be refused
        case = resolve(image, model, Target(0, Box((0,) * len(size), size, predicted_only=False)), run)
        numbers = objects(case.labels)
        if not numbers.any():
            return numbers, np.zeros((0, 0), np.float32)
        return numbers, region_vectors(case, layer, numbers)
