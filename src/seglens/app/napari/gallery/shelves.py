"""What the gallery shows: the items of a gallery, or rows of a feature bank, page by page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from seglens.app.napari.gallery import texts
from seglens.core.errors import SegLensError
from seglens.core.files import open_image
from seglens.core.image import Image

if TYPE_CHECKING:
    from seglens.engine.features import Entry, FeatureBank
    from seglens.workspace.gallery import Gallery, Item


@dataclass(frozen=True)
class Wanted:
    """Which items, and in which order.

    Args:
        label: class name; ``None`` for all.
        image: fingerprint of an image; ``None`` for all.
        status: ``kept``, ``dropped``, ``merged``; ``None`` for all.
        text: words that name, class, group or note must hold.
        order: ``label``, ``activity``, ``age``, ``image`` or ``id``.
        descending: the largest first.
    """

    label: str | None = None
    image: str | None = None
    status: str | None = "kept"
    text: str = ""
    order: str = "label"
    descending: bool = False


class Shelf(Protocol):
    """A source of thumbnails. Items have the fields of :class:`~seglens.workspace.gallery.Item`."""

    title: str
    editable: bool

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    def count(self, wanted: Wanted) -> int:
        """How many items there are."""

    def page(self, wanted: Wanted, offset: int, limit: int) -> list[Any]:
        """Some of them in order."""

    def images(self) -> list[tuple[str, str]]:
        """The images that items come from: shown name and fingerprint."""

    def crop(self, key: Any) -> NDArray[Any] | None:
        """The picture of an item, (h, w) or (h, w, 3) uint8; ``None`` if its image is gone."""

    def token(self) -> Any:
        """Changes when anybody has edited."""


class GalleryShelf:
    """The items of a gallery.

    Args:
        gallery: where they are.
    """

    editable = True
    slow = False

    def __init__(self, gallery: Gallery) -> None:
        """Nothing is read yet."""
        self._gallery = gallery
        self.title = gallery.info.title
        self._found: tuple[Any, list[Item]] = (None, [])

    @property
    def classes(self) -> Sequence[str]:
        """Those of the gallery."""
        return self._gallery.info.classes

    def count(self, wanted: Wanted) -> int:
        """How many items there are."""
        if wanted.text.strip():
            return len(self._matching(wanted))
        return self._gallery.count(**_filters(wanted))

    def page(self, wanted: Wanted, offset: int, limit: int) -> list[Item]:
        """Some of them in order."""
        if wanted.text.strip():
            return self._matching(wanted)[offset : offset + limit]
        return self._ordered(wanted, limit=limit, offset=offset)

    def images(self) -> list[tuple[str, str]]:
        """The images that items come from."""
        return sorted({(item.name or texts.NAMELESS, item.image) for item in self._gallery.items() if item.image})

    def crop(self, key: int) -> NDArray[Any] | None:
        """The picture of an item; it is in the gallery, wherever its image is."""
        try:
            return self._gallery.crop(key)
        except (SegLensError, OSError):
            return None

    def token(self) -> Any:
        """Changes when anybody has edited."""
        return self._gallery.token()

    def _ordered(self, wanted: Wanted, limit: int | None = None, offset: int = 0) -> list[Item]:
        how: dict[str, Any] = {"order": wanted.order, "descending": wanted.descending}
        return self._gallery.items(**_filters(wanted), **how, limit=limit, offset=offset)

    def _matching(self, wanted: Wanted) -> list[Item]:
        key = (wanted, self.token())
        if self._found[0] != key:
            self._found = (key, [item for item in self._ordered(wanted) if holds(item, wanted.text)])
        return self._found[1]


class BankShelf:
    """Rows of a feature bank; their pictures are cut from the images as they are seen.

    Args:
        bank: where they are.
        rows: which.
        title: what they are, for people.
    """

    editable = False
    slow = True

    def __init__(self, bank: FeatureBank, rows: Sequence[int], title: str = "") -> None:
        """The entries of these rows are read at once: they are words, no pixels."""
        from seglens.workspace.gallery import contrast_of

        self._bank = bank
        self._entries = dict(zip(rows, bank.entries(list(rows)), strict=True))
        self.title = title or texts.ROWS.format(count=len(self._entries), bank=bank.folder.name)
        self.rows = list(rows)
        self._open = lru_cache(4)(open_image)
        self._contrast = lru_cache(16)(lambda source, select: contrast_of(self._open(source), dict(select)))

    @property
    def classes(self) -> Sequence[str]:
        """Those of the model that the bank is of."""
        return self._bank.info.classes

    def count(self, wanted: Wanted) -> int:
        """How many rows there are."""
        return len(self._shown(wanted))

    def page(self, wanted: Wanted, offset: int, limit: int) -> list[Item]:
        """Some of them in order."""
        return self._shown(wanted)[offset : offset + limit]

    def images(self) -> list[tuple[str, str]]:
        """The images that rows come from."""
        return sorted({(entry.name or texts.NAMELESS, entry.image) for entry in self._entries.values()})

    def crop(self, key: int) -> NDArray[Any] | None:
        """The picture of a row.

        Raises:
            SegLensError: its image cannot be read any more.
        """
        from seglens.workspace.gallery import crop_of

        entry = self._entries[key]
        if not entry.source:
            return None
        image: Image = self._open(entry.source)
        contrast = self._contrast(entry.source, tuple(sorted(entry.select.items())))
        place = {"axes": self._bank.info.axes, "position": entry.position, "select": entry.select}
        return crop_of(image, entry.box, contrast=contrast, side=160, **place)  # type: ignore[arg-type]

    def token(self) -> Any:
        """A bank that is looked at does not change."""
        return 0

    def _shown(self, wanted: Wanted) -> list[Item]:
        items = [as_item(row, entry) for row, entry in self._entries.items()]
        found = [
            item for item in items
            if (wanted.label is None or item.label == wanted.label)
            and (wanted.image is None or item.image == wanted.image)
            and holds(item, wanted.text)
        ]  # fmt: skip
        return sorted(found, key=_KEYS[wanted.order], reverse=wanted.descending) if wanted.order in _KEYS else found


# A bank has no age: its rows stay in the order in which they came.
_KEYS: dict[str, Any] = {
    "label": lambda item: item.label,
    "image": lambda item: item.name,
    "activity": lambda item: -1.0 if item.activity is None else item.activity,
}


def holds(item: Item, text: str) -> bool:
    """Whether all words of a text stand somewhere in what an item says of itself.

    ``activity>0.1`` and ``activity<0.1`` compare its activation, ``age<7`` and ``age>7`` the days since it was added.
    """
    told = f"{item.label} {item.name} {item.group} {item.note} #{item.id}".lower()
    return all(_measures(item, word) if _COMPARED.fullmatch(word) else word in told for word in text.lower().split())


_COMPARED = re.compile(r"(activity|activation|age)([<>])(\d+(?:\.\d*)?|\.\d+)")


def _measures(item: Item, word: str) -> bool:
    found = _COMPARED.fullmatch(word)
    if found is None:
        return False
    name, way, number = found.groups()
    value = _days(item.created) if name == "age" else item.activity
    if value is None:
        return False
    return value > float(number) if way == ">" else value < float(number)


def _days(created: str) -> float | None:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds() / 86400
    except (ValueError, TypeError):
        return None


def _filters(wanted: Wanted) -> dict[str, Any]:
    return {"label": wanted.label, "image": wanted.image, "status": wanted.status}


def as_item(row: int, entry: Entry) -> Item:
    """A row of a bank as what the gallery shows."""
    from seglens.workspace.gallery import Item

    return Item(
        row, entry.predicted, "kept", entry.image, entry.name, entry.source, entry.select, entry.position, entry.box,
        None, entry.iou, entry.group, texts.of_entry(entry), "", None,
    )  # fmt: skip
