"""The half of a gallery that changes nothing: items, pictures, vectors, the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import NoSuchRegion, UnknownName
from seglens.core.run import Run
from seglens.core.saving import new_folder
from seglens.workspace.gallery import journal
from seglens.workspace.gallery.database import FILE, Database
from seglens.workspace.gallery.exchange import write_folder, write_table
from seglens.workspace.gallery.item import Edit, Info, Item, Order, Status, several
from seglens.workspace.gallery.page import write_page
from seglens.workspace.gallery.pictures import from_png
from seglens.workspace.gallery.rows import COLUMNS, filtered, is_there, item_of, ordered


class Looking:
    """An open gallery as it is looked at.

    Args:
        database: its file.
        person: whose edits these will be.
    """

    def __init__(self, database: Database, person: str) -> None:
        """Read what it is about."""
        self._db = database
        self.person = person
        self.folder = database.file.parent
        self.info = Info(**_read_about(database))

    def close(self) -> None:
        """Close the file; what was edited is in it already."""
        self._db.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def items(
        self,
        *,
        label: str | None = None,
        image: str | None = None,
        status: Status | None = None,
        group: str | None = None,
        order: Order = "id",
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Item]:
        """Items, filtered and sorted; those without activity come last when it is the order.

        Args:
            label, image, status, group: only these; ``image`` is a fingerprint.
            order: by what; ``age`` shows the oldest first.
            descending: turn the order round.
            limit, offset: a page of them.
        """
        where, values = filtered(label=label, image=image, status=status, grouped=group)
        page = [-1 if limit is None else limit, offset]
        sql = f"SELECT {COLUMNS} FROM item {where} {ordered(order, descending)} LIMIT ? OFFSET ?"
        return [item_of(row) for row in self._db.read(sql, [*values, *page])]

    def count(
        self,
        *,
        label: str | None = None,
        image: str | None = None,
        status: Status | None = None,
        group: str | None = None,
    ) -> int:
        """How many items :meth:`items` would find."""
        where, values = filtered(label=label, image=image, status=status, grouped=group)
        return int(self._db.one(f"SELECT count(*) FROM item {where}", values))

    def __len__(self) -> int:
        """All items, whatever their status."""
        return self.count()

    def item(self, number: int) -> Item:
        """One item.

        Raises:
            UnknownName: there is none of this number.
        """
        rows = self._db.read(f"SELECT {COLUMNS} FROM item WHERE alive = 1 AND id = ?", (number,))
        if not rows:
            raise self._unknown([number])
        return item_of(rows[0])

    def crop(self, number: int) -> NDArray[np.uint8]:
        """The picture of an item: (h, w) or (h, w, 3).

        Raises:
            UnknownName: there is no such item.
            NoSuchRegion: nobody knows what it looks like.
        """
        data = self.png(number)
        if data is None:
            raise NoSuchRegion(
                f"Item {number} has no picture: nobody knows where in which image it lies.",
                fix="Train the network with a push step, so that its prototypes are places in images.",
            )
        return from_png(data)

    def png(self, number: int) -> bytes | None:
        """The picture of an item as it is stored; ``None`` if there is none.

        Raises:
            UnknownName: there is no such item.
        """
        self.item(number)
        data = self._db.one("SELECT png FROM crop WHERE item = ?", (number,))
        return None if data is None else bytes(data)

    def vector(self, number: int) -> NDArray[np.float32] | None:
        """The embedding of an item, (D,); ``None`` if it has none."""
        self.item(number)
        data = self._db.one("SELECT data FROM vector WHERE item = ?", (number,))
        return None if data is None else np.frombuffer(data, np.float32).copy()

    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Number and embedding (D,) of every item that has one, read a few at a time."""
        # in the order in which they lie on disk: the crossed join keeps SQLite from sorting all of them for each page
        sql = (
            "SELECT vector.item, data FROM vector CROSS JOIN item ON id = vector.item "
            "WHERE alive = 1 AND vector.item > ? ORDER BY vector.item LIMIT 256"
        )
        last = -1
        while rows := self._db.read(sql, (last,)):
            for row in rows:
                yield row["item"], np.frombuffer(row["data"], np.float32)
            last = rows[-1]["item"]

    def token(self) -> int:
        """Another number once anybody, in any viewer or program, has edited the gallery; costs next to nothing."""
        return int(self._db.one("SELECT max(id) FROM log") or 0)

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back; empty if there is nothing."""
        rows = self._db.read(journal.NEXT["undo"])
        return str(rows[0]["what"]) if rows else ""

    @property
    def redoable(self) -> str:
        """What :meth:`redo` would do again; empty if there is nothing."""
        rows = self._db.read(journal.NEXT["redo"])
        return str(rows[0]["what"]) if rows else ""

    def history(self, limit: int | None = None) -> list[Edit]:
        """The log, the latest first: edits, undo and redo, by whom and when."""
        sql = "SELECT id, time, person, what, kind FROM log ORDER BY id DESC LIMIT ?"
        return [Edit(*row) for row in self._db.read(sql, (-1 if limit is None else limit,))]

    def missing(self) -> list[Item]:
        """Items whose image was a file and is not where it was; their picture and vector are here all the same."""
        sources = self._db.read("SELECT DISTINCT source FROM item WHERE alive = 1 AND source != ''")
        gone = json.dumps([row["source"] for row in sources if not is_there(row["source"])])
        sql = f"SELECT {COLUMNS} FROM item WHERE alive = 1 AND source IN (SELECT value FROM json_each(?)) ORDER BY id"
        return [item_of(row) for row in self._db.read(sql, (gone,))]

    def copy(self, folder: str | Path) -> None:
        """Write all of it, with log and undo, into a new folder; others may edit meanwhile.

        Raises:
            BadParameter: the folder is not empty or cannot be made.
        """
        with new_folder(folder) as path:
            self._db.copy(path / FILE)

    def export_table(self, file: str | Path) -> None:
        """Write a CSV table, a row for each item; see :func:`~seglens.workspace.gallery.exchange.write_table`."""
        write_table(self, Path(file).expanduser())

    def export_html(self, file: str | Path, run: Run | None = None) -> None:
        """Write one page with all pictures in it; see :func:`~seglens.workspace.gallery.page.write_page`."""
        write_page(self, Path(file).expanduser(), run or Run())

    def export(self, folder: str | Path, run: Run | None = None) -> None:
        """Write table, crops and vectors; see :func:`~seglens.workspace.gallery.exchange.write_folder`."""
        write_folder(self, Path(folder).expanduser(), run or Run())

    def _known(self, ids: Iterable[int]) -> list[int]:
        numbers = [int(i) for i in dict.fromkeys(ids)]
        sql = "SELECT id FROM item WHERE alive = 1 AND id IN (SELECT value FROM json_each(?))"
        found = {row["id"] for row in self._db.read(sql, (json.dumps(numbers),))}
        wrong = [n for n in numbers if n not in found]
        if wrong:
            raise self._unknown(wrong)
        return numbers

    def _unknown(self, numbers: Sequence[int]) -> UnknownName:
        return UnknownName(
            f"There is no {several(numbers)} in the gallery {self.folder.name}.",
            fix=f"See `seglens gallery list {self.folder}` for their numbers.",
        )


def _read_about(database: Database) -> dict[str, Any]:
    told = {row["key"]: json.loads(row["value"]) for row in database.read("SELECT key, value FROM about")}
    return told | {"classes": tuple(told["classes"])}
