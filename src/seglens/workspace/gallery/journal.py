"""Edits: what changed in which item, the log that only grows, and the way back and forth.

An edit writes its line of the log, what each item was and is, its place on the undo stack and the items
themselves, all in the caller's one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from seglens.workspace.gallery.item import several

Values = Mapping[str, Any]


def now() -> str:
    """This moment, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def log(db: sqlite3.Connection, person: str, kind: str, what: str, edit: int | None = None) -> int:
    """Write a line of the log; returns its number."""
    sql = "INSERT INTO log (time, person, kind, what, edit) VALUES (?, ?, ?, ?, ?)"
    return int(db.execute(sql, (now(), person, kind, what, edit)).lastrowid or 0)


def edit(db: sqlite3.Connection, person: str, what: str, changes: Mapping[int, Values]) -> int:
    """Change items, so that it can be undone.

    Args:
        db: inside a transaction.
        person: who does it.
        what: in words; ``{items}`` becomes the numbers of those that changed.
        changes: the new values by item, column by column; columns that stay need not be named.

    Returns:
        How many items are different now. Where none is, nothing is logged.
    """
    columns = sorted({column for values in changes.values() for column in values})
    if not columns:
        return 0
    before = {
        row["id"]: row
        for row in db.execute(
            f"SELECT id, {', '.join(columns)} FROM item WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(changes)),),
        )
    }
    moved = {}
    for item, values in changes.items():
        new = {column: value for column, value in values.items() if before[item][column] != value}
        if new:
            moved[item] = ({column: before[item][column] for column in new}, new)
    if not moved:
        return 0
    # what had been undone cannot come back once something else was done; the log still tells of it
    db.execute("DELETE FROM undo WHERE undone = 1")
    number = log(db, person, "edit", what.replace("{items}", several(moved), 1))
    db.execute("INSERT INTO undo (edit, undone) VALUES (?, 0)", (number,))
    db.executemany(
        "INSERT INTO change (edit, item, before, after) VALUES (?, ?, ?, ?)",
        ((number, item, json.dumps(old), json.dumps(new)) for item, (old, new) in moved.items()),
    )
    _set(db, ((item, new) for item, (_, new) in moved.items()))
    return len(moved)


def undo(db: sqlite3.Connection, person: str) -> str | None:
    """Take back the last edit; returns what that was, ``None`` if there is none."""
    return _turn(db, person, "undo")


def redo(db: sqlite3.Connection, person: str) -> str | None:
    """Do again what was undone last; returns what that was, ``None`` if there is nothing."""
    return _turn(db, person, "redo")


# The stack is a line: all that is done lies before all that is undone.
_STACK = "SELECT log.id, log.what FROM undo JOIN log ON log.id = undo.edit WHERE undone = "
NEXT = {"undo": _STACK + "0 ORDER BY log.id DESC LIMIT 1", "redo": _STACK + "1 ORDER BY log.id LIMIT 1"}


def _turn(db: sqlite3.Connection, person: str, way: str) -> str | None:
    found = db.execute(NEXT[way]).fetchone()
    if found is None:
        return None
    number, what = int(found["id"]), str(found["what"])
    side = "before" if way == "undo" else "after"
    rows = db.execute(f"SELECT item, {side} FROM change WHERE edit = ?", (number,)).fetchall()
    _set(db, ((row["item"], json.loads(row[side])) for row in rows))
    db.execute("UPDATE undo SET undone = ? WHERE edit = ?", (int(way == "undo"), number))
    log(db, person, way, f"{'undid' if way == 'undo' else 'redid'}: {what}", number)
    return what


def _set(db: sqlite3.Connection, changes: Iterable[tuple[int, Values]]) -> None:
    """Write values, all items of the same columns in one go."""
    together: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for item, values in changes:
        columns = tuple(sorted(values))
        together.setdefault(columns, []).append((*(values[c] for c in columns), item))
    for columns, rows in together.items():
        db.executemany(f"UPDATE item SET {', '.join(f'{c} = ?' for c in columns)} WHERE id = ?", rows)
