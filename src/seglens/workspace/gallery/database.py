"""The file of a gallery: SQLite in WAL mode, a connection per thread, and the way from older schemas."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from seglens.core.errors import BadParameter, ImageMismatch

FILE = "gallery.sqlite"
VERSION = 1
# How to get from a version to the next; each runs in the transaction that also writes the new number.
MIGRATIONS: dict[int, str] = {}
WAIT = 30.0  # seconds for another program to finish its edit

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OUTSIDE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
}  # fmt: skip

# Items are never deleted: an addition that was undone is no longer alive, so redo and history lose nothing.
# The log only grows, and the database itself refuses anything else.
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE item (
    id INTEGER PRIMARY KEY, alive INTEGER NOT NULL, label TEXT NOT NULL, status TEXT NOT NULL, image TEXT NOT NULL,
    name TEXT NOT NULL, source TEXT NOT NULL, chosen TEXT NOT NULL, position TEXT NOT NULL, box TEXT NOT NULL,
    prototype INTEGER, activity REAL, grouped TEXT NOT NULL, note TEXT NOT NULL, created TEXT NOT NULL,
    merged_into INTEGER REFERENCES item (id)
);
CREATE INDEX item_label ON item (alive, label, id);
CREATE INDEX item_status ON item (alive, status, label, id);
CREATE INDEX item_image ON item (alive, image, id);
CREATE INDEX item_activity ON item (alive, activity, id);
CREATE INDEX item_created ON item (alive, created, id);
CREATE INDEX item_source ON item (source);
CREATE INDEX item_merged ON item (merged_into) WHERE merged_into IS NOT NULL;
CREATE TABLE crop (item INTEGER PRIMARY KEY REFERENCES item (id), png BLOB NOT NULL);
CREATE TABLE vector (item INTEGER PRIMARY KEY REFERENCES item (id), data BLOB NOT NULL);
CREATE TABLE file (source TEXT PRIMARY KEY, size INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, person TEXT NOT NULL, kind TEXT NOT NULL,
    what TEXT NOT NULL, edit INTEGER REFERENCES log (id)
);
CREATE TABLE change (
    edit INTEGER NOT NULL REFERENCES log (id), item INTEGER NOT NULL REFERENCES item (id),
    before TEXT NOT NULL, after TEXT NOT NULL, PRIMARY KEY (edit, item)
) WITHOUT ROWID;
CREATE TABLE undo (edit INTEGER PRIMARY KEY REFERENCES log (id), undone INTEGER NOT NULL);
CREATE TRIGGER log_stays BEFORE UPDATE ON log BEGIN SELECT RAISE (ABORT, 'the log only grows'); END;
CREATE TRIGGER log_keeps BEFORE DELETE ON log BEGIN SELECT RAISE (ABORT, 'the log only grows'); END;
"""


class Database:
    """One gallery's file; safe to use from several threads and next to other programs.

    Args:
        folder: of the gallery; it is there.
        about: make a new file that is about this; by default it is there.

    Raises:
        ImageMismatch: no gallery, a broken one, or one of a newer SegLens.
        BadParameter: it cannot be read or written.
    """

    def __init__(self, folder: Path, *, about: Mapping[str, Any] | None = None) -> None:
        """Open the file, and bring it to this version if it is older."""
        self.file = folder / FILE
        self._connections: dict[int, sqlite3.Connection] = {}
        self._closed = False
        # without "c" a gallery whose folder is gone is an error, and not an empty file
        self._address = f"{self.file.absolute().as_uri()}?mode={'rw' if about is None else 'rwc'}"
        self._lock = threading.Lock()
        if about is None and not self.file.is_file():
            raise ImageMismatch(
                f"{folder} holds no gallery (no {FILE}).", fix="Give a folder that `seglens gallery make` wrote."
            )
        if about is None:
            self._migrate()
            return
        with self.writing() as db:
            for statement in statements(SCHEMA):
                db.execute(statement)
            rows = ((key, json.dumps(value)) for key, value in about.items())
            db.executemany("INSERT INTO about (key, value) VALUES (?, ?)", rows)
            db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Close the connections of all threads; closing twice is no fault."""
        with self._lock:
            self._closed = True
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows that a query finds."""
        with self._told():
            return self._connection().execute(sql, values).fetchall()

    def one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first value of the first row; ``None`` if there is no row."""
        rows = self.read(sql, values)
        return rows[0][0] if rows else None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all that is written inside is there after, or nothing of it."""
        with self._told():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:  # also Ctrl-C and cancel: half an edit is none
                connection.rollback()
                raise
            connection.commit()

    def _connection(self) -> sqlite3.Connection:
        me = threading.get_ident()
        with self._lock:
            if self._closed:
                raise BadParameter(f"The gallery {self.file.parent} was closed.", fix="Open it again.")
            known = self._connections.get(me)
            if known is None:
                # a thread uses its own only; they are closed together by whoever closes the gallery
                known = sqlite3.connect(
                    self._address, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False
                )
                self._connections[me] = known
                known.row_factory = sqlite3.Row
                known.execute("PRAGMA journal_mode = WAL")
                known.execute("PRAGMA synchronous = FULL")
                known.execute("PRAGMA foreign_keys = ON")
        return known

    def _migrate(self) -> None:
        version = int(self.one("PRAGMA user_version"))
        if version > VERSION:
            raise ImageMismatch(
                f"The gallery {self.file.parent} is of version {version}; this SegLens knows {VERSION}.",
                fix="Update SegLens, or open it with the newer one that made it.",
            )
        if version == VERSION:
            return
        if version == 0:
            raise ImageMismatch(
                f"{self.file} is not the file of a gallery.", fix="Give a folder that `seglens gallery make` wrote."
            )
        self.copy(self.file.with_name(f"gallery-v{version}.sqlite"))  # as it was, whole, beside what it becomes
        with self.writing() as db:
            # another program may have been faster
            for step in range(int(db.execute("PRAGMA user_version").fetchone()[0]), VERSION):
                for statement in statements(MIGRATIONS[step]):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")

    def copy(self, file: Path) -> None:
        """Write all of it into another file, which is there whole or not at all."""
        draft = file.with_suffix(".draft")
        with self._told(), closing(sqlite3.connect(draft)) as other:
            self._connection().backup(other)
        draft.replace(file)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            # the lower byte is the kind of error; what is in neither list is a fault of ours
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGED:
                raise ImageMismatch(
                    f"The gallery {self.file.parent} is damaged: {error}.",
                    fix=f"Bring back {self.file.name} from a copy, or import an exported folder into a new gallery.",
                ) from error
            if code not in _OUTSIDE:
                raise
            raise BadParameter(
                f"The gallery {self.file.parent} cannot be used: {error}.",
                fix="Close other programs that write to it; check that the disk has room and that you may write there.",
            ) from error


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would end the transaction that holds them."""
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""
