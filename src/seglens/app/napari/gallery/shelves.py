"""What the gallery shows: the items of a gallery, or rows of a feature bank, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


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
