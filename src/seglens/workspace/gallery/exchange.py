"""Galleries as files that other programs read: a CSV table, and a folder with the table, crops and vectors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, ImageMismatch, SegLensError
from seglens.core.run import Run
from seglens.core.saving import new_folder
from seglens.workspace.gallery.cutting import Cutter
from seglens.workspace.gallery.item import Info, Item, NewItem, Span, Status
from seglens.workspace.gallery.pictures import from_png
from seglens.workspace.gallery.rows import as_row

if TYPE_CHECKING:
    from seglens.workspace.gallery.looking import Looking

N = TypeVar("N", int, float)
TABLE, ABOUT, CROPS, VECTORS = "items.csv", "gallery.json", "crops", "vectors"
COLUMNS = (
    "id", "label", "status", "merged_into", "prototype", "activity", "name", "group", "note", "position", "box",
    "select", "image", "source", "created", "crop", "vector",
)  # fmt: skip
# A spreadsheet takes a text that begins so for a formula; an apostrophe before it says that it is none.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def write_table(gallery: Looking, file: Path) -> None:
    """Write all items as CSV, a row each.

    Raises:
        BadParameter: the file cannot be written.
    """
    try:
        with file.open("w", newline="", encoding="utf-8") as target:
            _write_rows(target, (_told(item) for item in gallery.items()))
    except OSError as error:
        raise BadParameter(
            f"{file} cannot be written: {error.strerror}.", fix="Choose a file in a folder that you may write to."
        ) from error


def write_folder(gallery: Looking, folder: Path, run: Run) -> None:
    """Write what the gallery is about, the table, and a PNG and a vector for each item into a new folder.

    Raises:
        BadParameter: the folder is not empty or cannot be made.
        Cancelled: stopped; the folder is gone again.
    """
    with new_folder(folder) as path:
        text = json.dumps({"format": 1, **asdict(gallery.info)}, indent=2, ensure_ascii=False)
        (path / ABOUT).write_text(text + "\n", encoding="utf-8")
        for name in (CROPS, VECTORS):
            (path / name).mkdir()
        with (path / TABLE).open("w", newline="", encoding="utf-8") as target:
            _write_rows(target, _told_with_files(gallery, path, run))


def read_about(source: Path) -> Info | None:
    """What an exported gallery is about; ``None`` for a table alone."""
    file = source / ABOUT
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        known = {key: value for key, value in told.items() if key in Info.__dataclass_fields__}
        return Info(**known | {"classes": tuple(known["classes"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ImageMismatch(f"{file} cannot be read: {error!r}.", fix="Export the gallery again.") from error


class TableFile:
    """A table that is imported: its rows are read one by one.

    Args:
        source: a CSV file, or a folder that :func:`write_folder` wrote.

    Raises:
        ImageMismatch: there is no table, or it is none of items.
    """

    def __init__(self, source: Path) -> None:
        """Read the head of the table, the numbers of the items and what they were merged into."""
        self.file = source / TABLE if source.is_dir() else source
        if not self.file.is_file():
            raise ImageMismatch(
                f"There is no table of items at {self.file}.", fix="Give a CSV file, or a folder of `gallery export`."
            )
        self.old, self.merged, self.labels = list[int | None](), list[int | None](), dict[str, None]()
        for _, row in self._rows():
            self.labels[_plain(row["label"])] = None
            self.old.append(_number(row.get("id"), int))
            self.merged.append(_number(row.get("merged_into"), int))

    def items(self, info: Info, run: Run) -> Iterator[NewItem]:
        """The items, in order; ``merged_into`` is left to whoever knows their new numbers.

        Args:
            info: what the gallery is about that they are for.
            run: progress and cancel.

        Raises:
            BadParameter: a row cannot be understood or does not fit; it says which.
        """
        cut = Cutter(info.axes)
        for done, (line, row) in enumerate(self._rows()):
            run.progress(done, len(self.old), f"Importing {self.file.name}")
            try:
                item = self._item(row, cut)
                as_row(item, info)
            except (ValueError, OSError, LookupError) as error:
                what = error.what if isinstance(error, SegLensError) else f"{error}."
                fix = error.fix if isinstance(error, SegLensError) else "Correct this row, or leave it out."
                raise BadParameter(f"{self.file.name}, line {line}: {what}", fix=fix) from error
            yield item

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        try:
            with self.file.open(newline="", encoding="utf-8-sig") as source:
                head = source.readline()
                source.seek(0)
                # a spreadsheet where numbers have commas writes semicolons
                reader = csv.DictReader(source, delimiter=";" if head.count(";") > head.count(",") else ",")
                if "label" not in (reader.fieldnames or ()):
                    raise ImageMismatch(
                        f"{self.file.name} has no column called label.",
                        fix="Name the columns in the first line: label, and crop or source and box, are needed.",
                    )
                for row in reader:
                    yield reader.line_num, {key: value or "" for key, value in row.items() if isinstance(key, str)}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ImageMismatch(
                f"{self.file.name} cannot be read: {error}.", fix="Save it as CSV with UTF-8 text."
            ) from error

    def _item(self, row: dict[str, str], cut: Cutter) -> NewItem:
        status = row.get("status") or "kept"
        if status not in get_args(Status) or (status == "merged") != bool(row.get("merged_into")):
            raise ValueError(f"The status {status!r} and merged_into {row.get('merged_into')!r} do not go together")
        box = tuple(_span(part) for part in row.get("box", "").split())
        position = tuple(int(part) for part in row.get("position", "").split())
        position = position or tuple((a + b) // 2 for a, b in box)
        select = {axis: int(at) for axis, _, at in (part.partition("=") for part in row.get("select", "").split())}
        source, told = _plain(row.get("source", "")), {n: _plain(row.get(n, "")) for n in ("name", "group", "note")}
        if row.get("crop"):
            crop: NDArray[np.uint8] | None = from_png(self._beside(row["crop"]).read_bytes())
        else:  # a table alone has no pictures: they are cut again
            crop = cut(source, row.get("image", ""), box, position, select) if source and box else None
        return NewItem(
            _plain(row["label"]), crop, position, box,
            row.get("image", ""), told["name"], source, select,
            _number(row.get("prototype"), int), _number(row.get("activity"), float), told["group"], told["note"],
            self._vector(row), status, row.get("created", ""),  # type: ignore[arg-type]
        )  # fmt: skip

    def _vector(self, row: dict[str, str]) -> NDArray[Any] | None:
        return np.load(self._beside(row["vector"]), allow_pickle=False) if row.get("vector") else None

    def _beside(self, name: str) -> Path:
        """A file that lies with the table; nothing else is read."""
        folder = self.file.parent.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            raise ValueError(f"{name} does not lie beside the table")
        return path


def _write_rows(target: Any, rows: Iterator[dict[str, Any]]) -> None:
    writer = csv.DictWriter(target, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)


def _told(item: Item) -> dict[str, Any]:
    row = {name: getattr(item, name, "") for name in COLUMNS} | {
        "position": " ".join(map(str, item.position)),
        "box": " ".join(f"{a}:{b}" for a, b in item.box),
        "select": " ".join(f"{axis}={at}" for axis, at in item.select.items()),
    }
    return {key: _guarded(value) if key in ("label", "name", "group", "note", "source") else value
            for key, value in row.items()}  # fmt: skip


def _told_with_files(gallery: Looking, folder: Path, run: Run) -> Iterator[dict[str, Any]]:
    items = gallery.items()
    for done, item in enumerate(items):
        run.progress(done, len(items), "Exporting")
        row, vector, png = _told(item), gallery.vector(item.id), gallery.png(item.id)
        if png is not None:
            row["crop"] = f"{CROPS}/{item.id:06d}.png"
            (folder / row["crop"]).write_bytes(png)
        if vector is not None:
            row["vector"] = f"{VECTORS}/{item.id:06d}.npy"
            np.save(folder / row["vector"], vector)
        yield row


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def _span(text: str) -> Span:
    start, _, stop = text.partition(":")
    return int(start), int(stop)


def _number(text: str | None, kind: Callable[[str], N]) -> N | None:
    return kind(text) if text else None
