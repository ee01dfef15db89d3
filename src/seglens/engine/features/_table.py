"""The SQLite side of a bank: which embedding comes from where. The number of its entries is the truth."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter
from seglens.engine.features.entry import BankInfo, Entry, Failure, ImageRow

VERSION = 1
AT_ONCE = 500  # numbers in one question

SCHEMA = """
CREATE TABLE info (
    one INTEGER PRIMARY KEY CHECK (one = 1), json TEXT NOT NULL, drops INTEGER NOT NULL DEFAULT 0);
CREATE TABLE images (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, name TEXT NOT NULL, source TEXT NOT NULL, grp TEXT NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0, UNIQUE (fingerprint, name, source, grp));
CREATE TABLE entries (
    row INTEGER PRIMARY KEY, image INTEGER NOT NULL REFERENCES images (id), place TEXT NOT NULL,
    pixels INTEGER NOT NULL, predicted TEXT NOT NULL, truth TEXT, iou REAL);
CREATE INDEX by_image ON entries (image, row);
CREATE INDEX by_predicted ON entries (predicted, row);
CREATE INDEX by_truth ON entries (truth, row);
CREATE TABLE failures (source TEXT NOT NULL, name TEXT NOT NULL, what TEXT NOT NULL, fix TEXT NOT NULL,
    PRIMARY KEY (source, name));
"""


class Table:
    """One connection, usable from any thread.

    Args:
        file: the database.
        info: what a new one is about; ``None`` opens one that is there.
    """

    def __init__(self, file: Path, info: BankInfo | None = None) -> None:
        """Open or make it.

        Raises:
            BadParameter: it cannot be read, or a later version made it.
        """
        self._lock = threading.RLock()
        self.file = file
        with self._told():
            if info is None and not os.access(file.parent, os.W_OK):
                self._db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True, **_SETTINGS)
            else:
                self._db = sqlite3.connect(file, **_SETTINGS)
                self._db.execute("PRAGMA journal_mode = WAL")
            if info is not None:
                self._make(info)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            self.close()
            raise BadParameter(
                f"{file.parent} is a feature bank of version {version}; this SegLens reads version {VERSION}.",
                fix="Update SegLens, or build the bank again.",
            )

    def _make(self, info: BankInfo) -> None:
        self._db.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        self._db.execute("INSERT INTO info (one, json) VALUES (1, ?)", (info.to_json(),))

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def info(self) -> BankInfo:
        """What the bank is about."""
        found = self._ask("SELECT json FROM info")
        return BankInfo.from_json(found[0][0] if found else "")

    def __len__(self) -> int:
        """Number of entries."""
        return int(self._ask("SELECT COALESCE(MAX(row) + 1, 0) FROM entries")[0][0])

    def drops(self) -> int:
        """How often entries were forgotten: rows may stand for others since."""
        return int(self._ask("SELECT drops FROM info")[0][0])

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; nobody else writes meanwhile, and an error leaves everything as it was."""
        with self._lock, self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BadParameter(
                f"The feature bank {self.file.parent} cannot be used: {error}.",
                fix="Close other programs that write to it, or build it again into a new folder.",
            ) from error

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._told():
            found: list[tuple[Any, ...]] = self._db.execute(question, values).fetchall()
            return found

    def add(self, db: sqlite3.Connection, first: int, entries: Sequence[Entry]) -> None:
        """Write entries from a row on, inside :meth:`writing`."""
        known: dict[tuple[str, str, str, str], int] = {}
        for one in entries:
            key = (one.image, one.name, one.source, one.group)
            if key not in known:
                known[key] = self.image(db, *key)
        told = [
            (row, known[e.image, e.name, e.source, e.group], _place(e), e.pixels, e.predicted, e.truth, e.iou)
            for row, e in enumerate(entries, first)
        ]
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", told)

    def image(self, db: sqlite3.Connection, fingerprint: str, name: str, source: str, group: str) -> int:
        """The number of an image, which is noted if it is new; inside :meth:`writing`."""
        key = (fingerprint, name, source, group)
        db.execute("INSERT OR IGNORE INTO images (fingerprint, name, source, grp) VALUES (?, ?, ?, ?)", key)
        where = "fingerprint = ? AND name = ? AND source = ? AND grp = ?"
        return int(db.execute(f"SELECT id FROM images WHERE {where}", key).fetchone()[0])

    def entries(self, rows: Sequence[int], kind: Any) -> list[Entry]:
        """The entries of some rows, in their order."""
        found: dict[int, Entry] = {}
        for start in range(0, len(rows), AT_ONCE):
            some = [int(r) for r in rows[start : start + AT_ONCE]]
            marks = ",".join("?" * len(some))
            for row, *told in self._ask(f"{_ENTRY} WHERE e.row IN ({marks})", some):
                found[row] = _entry(kind, *told)
        return [found[int(row)] for row in rows]

    def rows(self, conditions: dict[str, str | None]) -> NDArray[np.int64]:
        """Rows, ascending, that fulfil every condition that is not ``None``."""
        wanted = {name: value for name, value in conditions.items() if value is not None}
        images = {"image": "fingerprint", "group": "grp"}
        parts = [
            f"image IN (SELECT id FROM images WHERE {images[n]} = ?)" if n in images else f"{n} = ?" for n in wanted
        ]
        where = f" WHERE {' AND '.join(parts)}" if parts else ""
        with self._lock, self._told():
            found = self._db.execute(f"SELECT row FROM entries{where}", [*wanted.values()])
            return np.sort(np.fromiter((r for (r,) in found), np.int64))

    def mark(self, group: str, rows: NDArray[np.bool_]) -> None:
        """Set ``rows`` (N,) to false where a group is."""
        spans = self._ask(
            "SELECT MIN(row), MAX(row), COUNT(*) FROM entries "
            "WHERE image IN (SELECT id FROM images WHERE grp = ?) GROUP BY image", (group,)
        )  # fmt: skip
        # an image's entries mostly stand side by side
        if all(last - first + 1 == count for first, last, count in spans):
            for first, last, _ in spans:
                rows[first : last + 1] = False
        else:
            rows[self.rows({"group": group})] = False

    def images(self) -> list[ImageRow]:
        """All images, in the order in which they came."""
        found = self._ask(
            "SELECT fingerprint, name, source, grp, (SELECT COUNT(*) FROM entries WHERE image = id), finished "
            "FROM images ORDER BY id"
        )
        return [ImageRow(mark, name, source, group, n, bool(done)) for mark, name, source, group, n, done in found]

    def groups(self) -> set[str]:
        """All groups."""
        return {g for (g,) in self._ask("SELECT DISTINCT grp FROM images")}

    def failures(self) -> list[Failure]:
        """What could not be embedded."""
        return [Failure(*told) for told in self._ask("SELECT name, source, what, fix FROM failures ORDER BY rowid")]

    def finish(self, fingerprint: str, name: str, source: str, group: str) -> None:
        """All of an image is there, even if that is nothing."""
        with self.writing() as db:
            number = self.image(db, fingerprint, name, source, group)
            db.execute("UPDATE images SET finished = 1 WHERE id = ?", (number,))

    def forget_failures(self) -> None:
        """A new build tries everything again."""
        with self.writing() as db:
            db.execute("DELETE FROM failures")

    def fail(self, failure: Failure) -> None:
        """Note an image that could not be embedded."""
        told = (failure.source, failure.name, failure.what, failure.fix)
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", told)

    def drop_unfinished(self) -> int:
        """Forget images that are not finished, and what came after them; how many entries that were."""
        with self.writing() as db:
            half = "image IN (SELECT id FROM images WHERE NOT finished)"
            first = db.execute(f"SELECT MIN(row) FROM entries WHERE {half}").fetchone()[0]
            gone = 0
            if first is not None:
                db.execute("UPDATE images SET finished = 0 WHERE id IN (SELECT image FROM entries WHERE row >= ?)",
                           (first,))  # fmt: skip
                db.execute(f"DELETE FROM entries WHERE row >= ? OR {half}", (first,))
                gone = db.execute("SELECT CHANGES()").fetchone()[0]
                db.execute("UPDATE info SET drops = drops + 1")
            db.execute("DELETE FROM images WHERE NOT finished")
        return int(gone)


_SETTINGS: dict[str, Any] = {"check_same_thread": False, "isolation_level": None, "timeout": 20.0}
_ENTRY = (
    "SELECT e.row, i.fingerprint, i.name, i.source, e.place, e.pixels, e.predicted, e.truth, e.iou, i.grp "
    "FROM entries e JOIN images i ON i.id = e.image"
)


def _place(entry: Entry) -> str:
    return json.dumps([dict(entry.select), [*map(int, entry.position)], [[int(a), int(b)] for a, b in entry.box]])


def _entry(kind: Any, image: str, name: str, source: str, place: str, *rest: Any) -> Entry:
    select, position, box = json.loads(place)
    return Entry(image, name, source, select, kind, tuple(position), tuple((a, b) for a, b in box), *rest)


def connect_lock(file: Path) -> sqlite3.Connection:
    """Hold a lock that ends with the process, so that two builds of one bank cannot mix.

    Raises:
        BadParameter: somebody else holds it.
    """
    db = sqlite3.connect(file, timeout=0.2, isolation_level=None, check_same_thread=False)
    try:
        db.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        db.close()
        raise BadParameter(
            f"{file.parent} is being built by another process.", fix="Wait for it, stop it, or choose another folder."
        ) from error
    return db
