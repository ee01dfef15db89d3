"""A gallery: prototypes that a person keeps, drops, merges and names; every edit is undoable and logged."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, UnknownName
from seglens.core.run import Run
from seglens.core.saving import check_new
from seglens.workspace.gallery import journal
from seglens.workspace.gallery.database import Database
from seglens.workspace.gallery.exchange import TABLE, TableFile
from seglens.workspace.gallery.item import Info, Item, NewItem, Span, several
from seglens.workspace.gallery.looking import Looking
from seglens.workspace.gallery.pictures import to_png
from seglens.workspace.gallery.rows import as_row
from seglens.workspace.gallery.sources import found_again, remembered


class Gallery(Looking):
    """A folder ``NAME.gallery`` that holds prototypes: their places, pictures and vectors, and the log of all edits.

    It can be open in several viewers, programs and threads at once. Each edit is one transaction: after a kill in
    its middle, all of it is there or nothing. Pictures and vectors are read one by one, so that memory stays small.

    Raises:
        ImageMismatch: no gallery, a damaged one, or one of a newer SegLens.
        BadParameter: it cannot be read or written.
    """

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        title: str = "",
        classes: Sequence[str],
        axes: str = "YX",
        model: str = "",
        model_source: str = "",
        model_sha256: str = "",
        layer: str = "",
        bank: str = "",
        group: str = "file",
        person: str | None = None,
    ) -> Gallery:
        """A new, empty gallery; see :class:`~seglens.workspace.gallery.item.Info` for what it is about.

        Raises:
            BadParameter: the folder is not empty or cannot be made, or there are no classes.
        """
        path = Path(folder).expanduser()
        check_new(path)
        if not classes or len(set(classes)) != len(classes):
            raise BadParameter(f"A gallery needs classes, each once; these are {list(classes)}.", fix="Name them.")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadParameter(
                f"The folder {path} cannot be made: {error.strerror}.", fix="Choose a folder that you may write to."
            ) from error
        title = title or path.name.removesuffix(".gallery")
        about = Info(
            title, tuple(classes), axes, model, model_source, model_sha256, layer, bank, group, journal.now()
        )  # fmt: skip
        return cls(Database(path, about=asdict(about)), person or _person())

    @classmethod
    def open(cls, folder: str | Path, *, person: str | None = None) -> Gallery:
        """A gallery that is there; an older one is brought to this version, and a copy of it is kept."""
        return cls(Database(Path(folder).expanduser()), person or _person())

    def add(
        self,
        *,
        label: str,
        crop: NDArray[Any] | None,
        position: Sequence[int],
        box: Sequence[Span],
        image: str = "",
        name: str = "",
        source: str = "",
        select: Mapping[str, int] | None = None,
        prototype: int | None = None,
        activity: float | None = None,
        group: str = "",
        note: str = "",
        vector: NDArray[Any] | None = None,
    ) -> int:
        """Add one item; the fields are those of :class:`~seglens.workspace.gallery.item.Item`.

        Args:
            crop: uint8, (h, w) or (h, w, 3), as :func:`~seglens.workspace.gallery.pictures.crop_of` cuts it.
            vector: (D,), its embedding.

        Returns:
            Its number.

        Raises:
            UnknownName: no such class.
            BadParameter: the crop is no picture, or position and box do not fit the axes.
        """
        place = (tuple(int(p) for p in position), tuple((int(a), int(b)) for a, b in box))
        new = NewItem(
            label, crop, *place, image, name, source, dict(select or {}), prototype, activity, group, note, vector
        )  # fmt: skip
        return self.add_many([new])[0]

    def add_many(self, new: Iterable[NewItem], what: str = "") -> list[int]:
        """Add items, in one edit; they are taken one at a time, so an iterator of many costs no memory.

        Args:
            new: the items.
            what: for the log; by default their numbers.

        Returns:
            Their numbers, in order.
        """
        with self._db.writing() as db:
            ids = self._insert(db, new)
            journal.edit(db, self.person, what or "added {items}", {i: {"alive": 1} for i in ids})
        return ids

    def import_(self, source: str | Path, run: Run | None = None) -> int:
        """Add the items of an exported folder or of a table; one edit.

        Into an empty gallery they come with their numbers, else they get new ones. Items of a table alone have their
        pictures cut again, out of the images that it names.

        Args:
            source: a folder of :meth:`export`, or a CSV file with at least the columns ``label`` and ``crop``
                (a PNG beside the table), or ``label``, ``source`` and ``box``.
            run: progress and cancel.

        Returns:
            How many.

        Raises:
            ImageMismatch: there is no such table.
            BadParameter: a row cannot be understood; nothing was imported.
            Cancelled: stopped; nothing was imported.
        """
        table = TableFile(Path(source).expanduser())
        with self._db.writing() as db:
            empty = db.execute("SELECT max(id) FROM item").fetchone()[0] is None
            free = empty and len(set(table.old)) == len(table.old)
            ids = self._insert(db, table.items(self.info, run or Run()), table.old if free else ())
            now = dict(zip(table.old, ids, strict=True))
            parts = {old for old, into in zip(table.old, table.merged, strict=True) if into is not None}
            lost = [into for into in table.merged if into is not None and (into not in now or into in parts)]
            if lost:
                raise BadParameter(
                    f"{table.file.name} says that items were merged into item {lost[0]}, which is not in it or is "
                    "itself a part of another.",
                    fix="Add its row, or empty the column merged_into and write kept into status.",
                )
            merged = [(now[into], i) for i, into in zip(ids, table.merged, strict=True) if into is not None]
            db.executemany("UPDATE item SET merged_into = ? WHERE id = ?", merged)
            what = f"imported {{items}} from {table.file.parent.name if table.file.name == TABLE else table.file.name}"
            journal.edit(db, self.person, what, {i: {"alive": 1} for i in ids})
        return len(ids)

    def drop(self, ids: Iterable[int]) -> int:
        """Let items count no more; they stay in sight. Returns how many changed."""
        return self._edit(ids, "dropped {items}", {"status": "dropped", "merged_into": None})

    def keep(self, ids: Iterable[int]) -> int:
        """Let dropped or merged items count again, each for itself. Returns how many changed."""
        return self._edit(ids, "kept {items}", {"status": "kept", "merged_into": None})

    def merge(self, ids: Iterable[int], into: int) -> int:
        """Let items be parts of another one, which must be kept; what was merged into them follows.

        Raises:
            UnknownName: no such item.
            BadParameter: into itself, into one that is not kept, or into one of another class.
        """
        with self._db.writing() as db:
            goal, parts = self.item(into), [self.item(number) for number in dict.fromkeys(ids)]
            if goal.status != "kept" or not parts or any(part.id == into for part in parts):
                told = several([part.id for part in parts]).capitalize() if parts else "Nothing"
                raise BadParameter(
                    f"{told} cannot be merged into item {into}, which is {goal.status}.",
                    fix="Merge into an item that is kept and is not one of them.",
                )
            for part in parts:
                if part.label != goal.label:
                    raise BadParameter(
                        f"Item {part.id} stands for {part.label} and item {into} for {goal.label}.",
                        fix="Relabel one of them first, if they are the same thing.",
                    )
            values = {"status": "merged", "merged_into": into}
            return self._change(db, "merged {items} into item " + str(into), self._with_parts(db, parts), values)

    def relabel(self, ids: Iterable[int], label: str) -> int:
        """Let items stand for another class, and what was merged into them. Returns how many changed.

        Raises:
            UnknownName: no such item or class.
            BadParameter: an item is a part of one that stays in its class.
        """
        if label not in self.info.classes:
            listing = f"The classes of this gallery are {', '.join(self.info.classes)}."
            raise UnknownName.among("class", label, self.info.classes, listing=listing)
        with self._db.writing() as db:
            asked = [self.item(number) for number in dict.fromkeys(ids)]
            moved = self._with_parts(db, asked)
            for one in asked:
                if one.merged_into is not None and one.merged_into not in moved:
                    raise BadParameter(
                        f"Item {one.id} is a part of item {one.merged_into}, which stands for {one.label}.",
                        fix=f"Keep it first, so that it stands for itself, or relabel item {one.merged_into}.",
                    )
            return self._change(db, f"relabelled {{items}} as {label}", moved, {"label": label})

    def set_note(self, number: int, text: str) -> None:
        """Write a note on an item; an empty text takes it away."""
        self._edit([number], "wrote on {items}" if text else "took the note from {items}", {"note": text})

    def set_activity(self, values: Mapping[int, float]) -> None:
        """Keep what was measured; logged, but nothing to undo: it can be measured again."""
        with self._db.writing() as db:
            self._known(values)
            rows = [(float(value), number) for number, value in values.items()]
            db.executemany("UPDATE item SET activity = ? WHERE id = ?", rows)
            journal.log(db, self.person, "measure", f"measured the activity of {several(values)}")

    def undo(self) -> str | None:
        """Take back the last edit, whoever did it; returns what it was, ``None`` if there is none."""
        with self._db.writing() as db:
            return journal.undo(db, self.person)

    def redo(self) -> str | None:
        """Do again what was undone last; returns what it was, ``None`` if there is nothing."""
        with self._db.writing() as db:
            return journal.redo(db, self.person)

    def relocate(self, folder: str | Path, run: Run | None = None) -> int:
        """Look for missing images in a folder and below, whatever their names are now; one edit.

        An image is known by the sha256 of its file, else by the fingerprint of its pixels.

        Returns:
            How many items have their image again.

        Raises:
            BadParameter: no such folder.
            Cancelled: stopped; nothing was changed.
        """
        lost = self.missing()
        known = {row["source"]: (row["size"], row["sha256"]) for row in self._db.read("SELECT * FROM file")}
        places = found_again(lost, known, Path(folder).expanduser(), self.info.axes, run or Run())
        changes = {item.id: {"source": places[item.source]} for item in lost if item.source in places}
        with self._db.writing() as db:
            for place in places.values():
                remembered(db, place)
            images = f"{len(places)} image{'s' if len(places) != 1 else ''}"
            return journal.edit(db, self.person, f"found {images} again in {folder}", changes)

    def _insert(self, db: Connection, new: Iterable[NewItem], numbers: Sequence[int | None] = ()) -> list[int]:
        """Write items that are not alive yet."""
        sources: set[str] = set()
        ids: list[int] = []
        for one in new:
            row = as_row(one, self.info) | {"id": numbers[len(ids)] if numbers else None, "alive": 0}
            png = None if one.crop is None else to_png(one.crop)
            sql = f"INSERT INTO item ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
            ids.append(int(db.execute(sql, list(row.values())).lastrowid or 0))
            if png is not None:
                db.execute("INSERT INTO crop (item, png) VALUES (?, ?)", (ids[-1], png))
            if one.vector is not None:
                data = np.asarray(one.vector, np.float32).ravel().tobytes()
                db.execute("INSERT INTO vector (item, data) VALUES (?, ?)", (ids[-1], data))
            if row["source"] not in sources:
                sources.add(row["source"])
                remembered(db, row["source"])
        return ids

    def _edit(self, ids: Iterable[int], what: str, values: Mapping[str, Any]) -> int:
        with self._db.writing() as db:
            return self._change(db, what, self._known(ids), values)

    def _change(self, db: Connection, what: str, ids: Iterable[int], values: Mapping[str, Any]) -> int:
        return journal.edit(db, self.person, what, dict.fromkeys(ids, values))

    def _with_parts(self, db: Connection, items: Sequence[Item]) -> list[int]:
        """Their numbers, and those of what was merged into them."""
        asked = [item.id for item in items]
        sql = "SELECT id FROM item WHERE alive = 1 AND merged_into IN (SELECT value FROM json_each(?))"
        return list(dict.fromkeys([*asked, *(row["id"] for row in db.execute(sql, (json.dumps(asked),)))]))


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # nobody has a name in some containers
        return "somebody"
