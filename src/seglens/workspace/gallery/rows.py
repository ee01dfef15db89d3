"""Items as rows of the database, and what a person asks for as SQL."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from seglens.core.errors import BadParameter, UnknownName
from seglens.core.files import SAMPLE
from seglens.workspace.gallery.item import Info, Item, NewItem
from seglens.workspace.gallery.journal import now

COLUMNS = (
    "id, label, status, image, name, source, chosen, position, box, prototype, activity, grouped, note, created, "
    "merged_into"
)
ORDERS = {"id": "id", "label": "label", "age": "created", "image": "image", "activity": "activity"}


def item_of(row: sqlite3.Row) -> Item:
    """A row of :data:`COLUMNS` as an item."""
    return Item(
        row["id"], row["label"], row["status"], row["image"], row["name"], row["source"],
        json.loads(row["chosen"]), tuple(json.loads(row["position"])),
        tuple((a, b) for a, b in json.loads(row["box"])),
        row["prototype"], row["activity"], row["grouped"], row["note"], row["created"], row["merged_into"],
    )  # fmt: skip


def as_row(new: NewItem, info: Info) -> dict[str, Any]:
    """A new item as columns, checked against what its gallery is about.

    Raises:
        UnknownName: no such class.
        BadParameter: position or box do not fit the axes.
    """
    if new.label not in info.classes:
        listing = f"The classes of this gallery are {', '.join(info.classes)}."
        raise UnknownName.among("class", new.label, info.classes, listing=listing)
    if (new.position or new.box) and {len(new.position), len(new.box)} != {len(info.axes)}:
        raise BadParameter(
            f"A place with {len(new.position)} numbers and a box with {len(new.box)} do not fit the axes {info.axes}.",
            fix="Give one number of the position and one span of the box for each axis.",
        )
    return {
        "label": new.label, "status": new.status, "image": new.image, "name": new.name,
        "source": _absolute(new.source), "chosen": json.dumps(dict(new.select)), "position": json.dumps(new.position),
        "box": json.dumps(new.box), "prototype": new.prototype, "activity": new.activity, "grouped": new.group,
        "note": new.note, "created": new.created or now(), "merged_into": new.merged_into,
    }  # fmt: skip


def filtered(**wanted: str | None) -> tuple[str, list[str]]:
    """A WHERE for the columns that are asked for, and its values."""
    asked = {column: value for column, value in wanted.items() if value is not None}
    return " AND ".join(["WHERE alive = 1", *(f"{column} = ?" for column in asked)]), list(asked.values())


def ordered(order: str, descending: bool) -> str:
    """An ORDER BY; ties by number.

    Raises:
        UnknownName: no such order.
    """
    if order not in ORDERS:
        raise UnknownName.among("order", order, ORDERS, listing=f"There are {', '.join(ORDERS)}.")
    column, way = ORDERS[order], "DESC" if descending else "ASC"
    unknown_last = "activity IS NULL, " if order == "activity" else ""
    return f"ORDER BY {unknown_last}{column} {way}, id {way}" if order != "id" else f"ORDER BY id {way}"


def is_there(source: str) -> bool:
    """Whether an image can be opened where it was; what never was a file is not missing."""
    return not source or source.startswith(SAMPLE) or Path(source).exists()


def _absolute(source: str) -> str:
    """A path that holds from any folder; what is not there is left as it was told."""
    path = Path(source).expanduser()
    return str(path.absolute()) if source and not source.startswith(SAMPLE) and path.exists() else source
