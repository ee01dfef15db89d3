"""Images that moved: what a file is known by, and the search for it below a folder."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.files import READERS, SAMPLE, open_image
from seglens.core.run import Run
from seglens.workspace.gallery.cutting import fingerprints, views
from seglens.workspace.gallery.item import Item

# From this size on the ends and the middle stand for the whole: slides are too large to be read for a name.
WHOLE, PIECE = 64 * 2**20, 2**20


def remembered(db: sqlite3.Connection, source: str) -> None:
    """Keep by what a file will be known should it move; folders (zarr) are known by their pixels alone."""
    path = Path(source)
    if not source or source.startswith(SAMPLE) or not path.is_file():
        return
    sql = "INSERT OR IGNORE INTO file (source, size, sha256) VALUES (?, ?, ?)"
    if db.execute("SELECT 1 FROM file WHERE source = ?", (source,)).fetchone() is None:
        db.execute(sql, (source, path.stat().st_size, digest(path)))


def digest(path: Path) -> str:
    """The sha256 of a file; of a very large one, of its size, its ends and its middle."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        parts = hashlib.sha256(str(size).encode())
        for start in (0, size // 2, size - PIECE):
            file.seek(start)
            parts.update(file.read(PIECE))
        return parts.hexdigest()


def found_again(
    lost: Sequence[Item], known: Mapping[str, tuple[int, str]], folder: Path, axes: str, run: Run
) -> dict[str, str]:
    """Where images lie now, by where they were.

    First by their files: same size, then same sha256; that reads next to nothing. What is not found so was saved
    anew, perhaps, and is looked for by the fingerprint of its pixels, those of the same name first.

    Args:
        lost: items whose images are searched.
        known: size and sha256 of files by source.
        folder: where to look, and below.
        axes: of the items' positions.
        run: progress and cancel.

    Raises:
        BadParameter: no such folder.
        Cancelled: stopped.
    """
    if not folder.is_dir():
        raise BadParameter(f"There is no folder {folder}.", fix="Give the folder in which the images are now.")
    wanted = {item.source: item for item in lost}
    if not wanted:
        return {}
    files = list(_images_below(folder.absolute(), run))
    places = _by_file({s: known[s] for s in wanted if s in known}, files, run)
    rest = {source: item for source, item in wanted.items() if source not in places and item.image}
    return places | _by_pixels(rest, files, axes, run) if rest else places


def _images_below(folder: Path, run: Run) -> Iterator[Path]:
    """Every image file and zarr folder, which is not entered."""
    for root, folders, files in os.walk(folder):
        run.progress(0, 1, f"Looking through {Path(root).name}")
        images = [name for name in folders if name.endswith(".zarr")]
        folders[:] = sorted(name for name in folders if name not in images and not name.startswith("."))
        endings = tuple(READERS)
        yield from (Path(root) / name for name in sorted([*images, *files]) if name.lower().endswith(endings))


def _by_file(known: Mapping[str, tuple[int, str]], files: Sequence[Path], run: Run) -> dict[str, str]:
    sizes = {size for size, _ in known.values()}
    candidates = [path for path in files if path.is_file() and path.stat().st_size in sizes]
    digests: dict[str, list[Path]] = {}
    for done, path in enumerate(candidates):
        run.progress(done, len(candidates), f"Reading {path.name}")
        digests.setdefault(digest(path), []).append(path)
    return {
        source: str(min(digests[sha], key=lambda path: (path.name != Path(source).name, str(path))))
        for source, (_, sha) in known.items()
        if sha in digests
    }


def _by_pixels(wanted: Mapping[str, Item], files: Sequence[Path], axes: str, run: Run) -> dict[str, str]:
    """By fingerprints: of files as they open, those of the same name first; then with other axes and channels."""
    names = {Path(source).name for source in wanted}
    ordered = sorted(files, key=lambda path: path.name not in names)
    places: dict[str, str] = {}
    for done, (every, path) in enumerate(product((False, True), ordered)):
        rest = {source: item for source, item in wanted.items() if source not in places}
        if not rest:
            break
        run.progress(done, 2 * len(files), f"Looking at {path.name}")
        try:
            image = open_image(path)
        except ImageMismatch:
            continue  # broken, or no image: then it is not the one
        ways = list(views(image, axes))[1:] if every else [image]
        for source, item in rest.items():
            if any(item.image in fingerprints(way, item.select) for way in ways):
                places[source] = str(path)
    return places
