"""The words of a gallery: what hangs in it, what it is about, and what was done to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

Status = Literal["kept", "dropped", "merged"]
Order = Literal["label", "activity", "age", "image", "id"]
Span = tuple[int, int]


@dataclass(frozen=True)
class Item:
    """One prototype: a place in an image that stands for a class.

    Args:
        id: its number in the gallery; never given twice.
        label: name of the class it stands for.
        status: ``kept``, ``dropped`` (it counts no more, and can be kept again) or ``merged`` into another.
        image: fingerprint of the image it comes from.
        name: of that image, as shown to people.
        source: path of that image, or ``sample:NAME``; empty if it never was a file.
        select: positions along further axes of the image (T, Z), if any.
        position: a pixel inside, along the gallery's axes, in pixels of the image; empty if nobody knows.
        box: half open, per axis; empty if nobody knows.
        prototype: its number in a prototype network; ``None`` if it is in none.
        activity: how much it explains, as it was last measured; ``None`` if it never was.
        group: slide, patient or file: what must not leak.
        note: what somebody wrote on it.
        created: when it was added, ISO 8601, UTC.
        merged_into: the item that it is a part of now.
    """

    id: int
    label: str
    status: Status
    image: str
    name: str
    source: str
    select: Mapping[str, int]
    position: tuple[int, ...]
    box: tuple[Span, ...]
    prototype: int | None
    activity: float | None
    group: str
    note: str
    created: str
    merged_into: int | None


@dataclass(frozen=True, eq=False)
class NewItem:
    """What is to be added: the fields of an :class:`Item` that are known before, its picture and its vector.

    Args:
        crop: uint8, (h, w) or (h, w, 3); ``None`` where nobody knows what it looks like.
        position, box: empty where nobody knows where it comes from.
        vector: (D,) float32: the embedding; ``None`` if there is none.
    """

    label: str
    crop: NDArray[Any] | None
    position: tuple[int, ...]
    box: tuple[Span, ...]
    image: str = ""
    name: str = ""
    source: str = ""
    select: Mapping[str, int] = field(default_factory=dict)
    prototype: int | None = None
    activity: float | None = None
    group: str = ""
    note: str = ""
    vector: NDArray[Any] | None = None
    status: Status = "kept"
    created: str = ""
    merged_into: int | None = None


@dataclass(frozen=True)
class Edit:
    """A line of the log.

    Args:
        number: counts up; also those of undo and redo.
        time: ISO 8601, UTC.
        person: who did it.
        what: in words.
        kind: ``edit``, ``undo``, ``redo`` or ``measure``.
    """

    number: int
    time: str
    person: str
    what: str
    kind: Literal["edit", "undo", "redo", "measure"]


@dataclass(frozen=True)
class Info:
    """What a gallery is about.

    Args:
        title: shown to people.
        classes: names that a label can be.
        axes: of positions and boxes, such as ``YX``.
        model, model_source, model_sha256: the network whose prototypes these are, or whose features the vectors are.
        layer: where the vectors were taken; empty without vectors.
        bank: the feature bank it was chosen from, if any.
        group: the rule that makes groups of images; see :func:`seglens.engine.features.group_of`.
        created: ISO 8601, UTC.
    """

    title: str
    classes: tuple[str, ...]
    axes: str = "YX"
    model: str = ""
    model_source: str = ""
    model_sha256: str = ""
    layer: str = ""
    bank: str = ""
    group: str = "file"
    created: str = ""


def several(ids: Iterable[int]) -> str:
    """Items in words: ``item 3``, ``items 3, 4 and 7``, ``120 items``."""
    numbers = sorted(ids)
    if len(numbers) == 1:
        return f"item {numbers[0]}"
    if len(numbers) > 5:
        return f"{len(numbers)} items"
    return f"items {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
