"""What worker threads do for the gallery; the engine, and with it torch, is imported inside the functions only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.app.napari.jobs import Emit
from seglens.core.errors import MissingNeed
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Region, Target


@dataclass(eq=False)
class Seen:
    """An image as a prototype network sees it: kept, so that edits take no pass through the network.

    Args:
        view: the engine's side.
        model: the network.
        before: the network's own mask (*space).
        owners: class of each prototype by number.
    """

    view: Any
    model: Any
    before: NDArray[np.uint8]
    owners: dict[int, str]


@dataclass(frozen=True, eq=False)
class Change:
    """The mask after an edit, and where it differs: 1 more, 2 fewer, 3 of another class."""

    labels: NDArray[np.uint8]
    difference: NDArray[np.uint8]
    seconds: float

    @property
    def counts(self) -> tuple[int, int, int]:
        """Pixels more, fewer, and of another class."""
        more, fewer, other = np.bincount(self.difference.ravel(), minlength=4)[1:4].tolist()
        return more, fewer, other


@dataclass(frozen=True)
class Part:
    """The share of the pixels that an item explains; ``None`` is for those that none explains."""

    item: int | None
    label: str
    share: float


@dataclass(frozen=True, eq=False)
class Why:
    """What made a pixel of its class: one row for each prototype, and their sum, the score of the class."""

    position: tuple[int, ...]
    label: str
    rows: tuple[WhyRow, ...]
    total: float


@dataclass(frozen=True, eq=False)
class WhyRow:
    """What one prototype brings: similarity times weight."""

    number: int
    item: int | None
    label: str
    similarity: float
    weight: float
    product: float
    crop: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class Looked:
    """An image and a model, and its fingerprint; ``seen`` is ``None`` where the model has no prototype layer."""

    image: Image
    model: Any
    fingerprint: str
    seen: Seen | None = None

    def is_of(self, gallery: Any) -> bool:
        """Whether a gallery is of this model, or of none."""
        return gallery.info.model_sha256 in ("", self.fingerprint)

    def holds(self, image: Image, model: Any) -> bool:
        """Whether it is about this view and model."""
        mine, other = ((x.data is image.data, x.axes, x.index, x.channels) for x in (self.image, image))
        return model is self.model and mine == other


def look(run: Run, emit: Emit, *, image: Image, model: Any) -> Looked:
    """Send an image through a prototype network, once; another network need not look.

    Raises:
        SegLensError: the image does not fit, or the network does more behind its prototypes than it may.
    """
    from seglens.engine.prototypes import PrototypeView, check_prototypes

    try:
        check_prototypes(model)
    except MissingNeed:
        return Looked(image, model, model.fingerprint())
    view = PrototypeView(model, image, run)
    return Looked(image, model, model.fingerprint(), Seen(view, model, view.labels(), _owners(model)))


@dataclass(frozen=True, eq=False)
class Measured:
    """Who explains how much of an image, and which items come from it or its group.

    Args:
        parts: the largest share first.
        leaks: items.
        other: the name of the chosen model, where the gallery is of another one.
        kept: whether the shares were kept as the items' activation.
    """

    parts: tuple[Part, ...] = ()
    leaks: tuple[int, ...] = ()
    other: str = ""
    kept: bool = False


def measure(
    run: Run, emit: Emit, *, looked: Looked, whole: Image, gallery: Any, fits: bool, keep: bool = False
) -> Measured:
    """The mask after the edits of a gallery, handed over as soon as it is there; then who explains how much of it.

    Args:
        fits: whether the gallery is of this network; of another one, only leaks can be told.
        keep: keep the shares as the items' activation, also where there is one already.

    Raises:
        SegLensError: what the engine says.
    """
    from seglens.workspace.gallery import coverage, edit_of, leaks, shares

    seen, found = looked.seen, []
    if fits and seen is not None and not gallery.info.layer:
        begin = time.perf_counter()
        edit, numbers = edit_of(gallery, looked.model)
        labels = seen.view.labels(edit)
        emit(Change(labels, _difference(seen.before, labels), time.perf_counter() - begin))
        run.check()
        found = shares(seen.view.winners(edit), items=numbers)
    elif fits and gallery.info.layer and gallery.count(status="kept"):
        found = coverage(gallery, looked.model, looked.image, run)
    items = gallery.items()
    labelled = {item.id: item.label for item in items}
    parts = tuple(Part(one.item, labelled.get(one.item or 0, ""), one.share) for one in found)
    # thumbnails without any activation could not be sorted by it
    keep = bool(found and items) and (keep or all(item.activity is None for item in items))
    if keep:
        gallery.set_activity({item.id: 0.0 for item in items} | {p.item: p.share for p in parts if p.item is not None})
    other = "" if fits else looked.model.spec.name
    return Measured(parts, tuple(item.id for item in leaks(gallery, whole)), other, keep)


def where(run: Run, emit: Emit, *, looked: Looked, gallery: Any, bank: Any, key: int) -> NDArray[np.float32]:
    """How alike every pixel of an image is to an item (*space), whatever its status.

    Args:
        gallery: the item's; ``None`` where it is a row of ``bank``.

    Raises:
        MissingNeed: the item has no vector of this network.
        SegLensError: what the engine says.
    """
    from seglens.engine.prototypes import PrototypeEdit

    seen = looked.seen
    if gallery is None:
        return _alike(run, looked, bank.info.layer, bank.vectors([key])[0], key)
    item = gallery.item(key)
    if seen is None:
        return _alike(run, looked, gallery.info.layer, gallery.vector(key), key)
    if item.prototype in seen.owners:
        return np.asarray(seen.view.at_image(item.prototype))
    one = _added(gallery, item, int(seen.view.features.shape[0]))
    if one is None:
        return _alike(run, looked, gallery.info.layer, gallery.vector(key), key)
    return np.asarray(seen.view.at_image(max(seen.owners) + 1, PrototypeEdit(added=(one,))))


def _alike(run: Run, looked: Looked, layer: str, vector: Any, key: int) -> NDArray[np.float32]:
    from seglens.engine.features.likeness import likeness
    from seglens.engine.resolve import resolve
    from seglens.models.segmentation import quiet

    if vector is None or not layer:
        raise MissingNeed(
            f"Item {key} has no vector of the chosen model, so where else it fires is not known.",
            fix="Choose the model of this gallery in SegLens, or add the region anew.",
        )
    with quiet(looked.model.module):
        return likeness(resolve(looked.image, looked.model, Target(), run), layer, vector)


def why(run: Run, emit: Emit, *, seen: Seen, gallery: Any, position: Sequence[int]) -> Why:
    """What each prototype brings to the score of the class at a pixel, after the edits of a gallery.

    Args:
        gallery: ``None`` asks the network as it is.
    """
    from seglens.engine.prototypes import prototypes_of
    from seglens.workspace.gallery import edit_of

    edit, numbers = (None, {}) if gallery is None else edit_of(gallery, seen.model)
    labels = seen.view.labels(edit)
    found = seen.view.contributions(position, edit, int(labels[tuple(position)]))
    crops = {one.number: one.crop for one in prototypes_of(seen.model)}
    rows = []
    for one in found:
        item = numbers.get(one.number)
        crop = crops.get(one.number)
        if (crop is None or not crop.size) and item is not None and gallery.png(item) is not None:
            crop = gallery.crop(item)
        rows.append(WhyRow(one.number, item, one.label, one.similarity, one.weight, one.product, crop))
    name = seen.model.spec.classes[int(labels[tuple(position)])].name
    return Why(tuple(position), name, tuple(rows), float(sum(one.product for one in found)))


@dataclass(frozen=True, eq=False)
class Place:
    """An image layer's view as an item will remember it.

    Args:
        whole: the image at the current position, not cropped: its fingerprint and its contrast count.
        view: the part that the model looks at.
        select: position along further axes.
    """

    whole: Image
    view: Image
    select: dict[str, int]


def take(
    run: Run, emit: Emit, *, place: Place, model: Any, seen: Seen | None, gallery: Any, region: Region,
    of_class: str | None,
) -> int:  # fmt: skip
    """Add a region of an image to a gallery, with its picture and its vector.

    Args:
        seen: the image as a prototype network sees it, if the gallery is of such a network.
        of_class: the class that it stands for; by default the one predicted there.

    Returns:
        The number of the new item.

    Raises:
        SegLensError: no such region, or a class that the gallery does not know.
    """
    from seglens.engine.features import group_of
    from seglens.engine.features.likeness import place_of
    from seglens.workspace.gallery import crop_of

    mask, label, vector = _region(run, place.view, model, seen, gallery, Target(of_class, region))
    at, box = place_of(mask)
    axes = model.spec.axes
    start = place.view.offset(axes)
    at = tuple(p + s for p, s in zip(at, start, strict=True))
    box = tuple((a + s, b + s) for (a, b), s in zip(box, start, strict=True))
    image = place.whole
    group = group_of(image.source or image.name, gallery.info.group, strict=False)
    return int(
        gallery.add(
            label=label, position=at, box=box, vector=vector, image=image.fingerprint(), name=image.name,
            source=image.source, select=place.select, group=group or "",
            crop=crop_of(image, box, axes=axes, position=at),
        )
    )  # fmt: skip


def _region(
    run: Run, image: Image, model: Any, seen: Seen | None, gallery: Any, target: Target
) -> tuple[NDArray[Any], str, NDArray[np.float32] | None]:
    """A region's mask, its class and its vector."""
    from seglens.engine.features import region_vector
    from seglens.engine.features.likeness import place_of, region_in
    from seglens.engine.resolve import resolve
    from seglens.models.segmentation import quiet
    from seglens.workspace.gallery import edit_of

    if seen is not None:
        mask, name = region_in(seen.view.logits(edit_of(gallery, model)[0]), target, model.spec)
        return mask, name, seen.view.taken(place_of(mask)[0], name).vector
    with quiet(model.module):
        case = resolve(image, model, target, run)
        mask, layer = case.target.region, gallery.info.layer
        return mask, case.target.name, region_vector(case, layer, mask) if layer else None


def _added(gallery: Any, item: Any, width: int) -> Any:
    """An item as a further prototype; ``None`` where it has no vector of the network's size."""
    from seglens.engine.prototypes import Added

    vector = gallery.vector(item.id)
    return None if vector is None or np.shape(vector) != (width,) else Added(vector, item.label, {})


def _owners(model: Any) -> dict[int, str]:
    from seglens.engine.prototypes import check_prototypes

    owner = check_prototypes(model).owner.tolist()
    return {number: model.spec.classes[index].name for number, index in enumerate(owner, start=1)}


def _difference(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    more, fewer = (before == 0) & (after > 0), (before > 0) & (after == 0)
    other = (before != after) & ~more & ~fewer
    return np.asarray(more + 2 * fewer + 3 * other, np.uint8)
