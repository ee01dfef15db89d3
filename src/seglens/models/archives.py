"""Archives from elsewhere: checked before a byte of them is unpacked."""

from __future__ import annotations

import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from seglens.core.errors import ModelMismatch

MOST_BYTES = 32 * 2**30
MOST_FILES = 50_000
MOST_RATIO = 200
# a small file of zeros compresses a thousandfold and harms nobody
RATIO_MATTERS_FROM = 64 * 2**20
ENCRYPTED = 0x1
AGAIN = "Fetch it again from where it came; if that does not help, ask its author for another copy."


def check_archive(path: Path, *, limit: int = MOST_BYTES) -> list[str]:
    """Names of the files in a zip archive that is safe to unpack.

    Args:
        path: the archive.
        limit: how many bytes it may hold when unpacked.

    Raises:
        ModelMismatch: the archive is damaged, too large when unpacked, or reaches outside its folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    _check_size(path, entries, limit)
    for entry in entries:
        _check_entry(path, entry)
    return [entry.filename for entry in entries if not entry.is_dir()]


@contextmanager
def opened(path: Path, *, limit: int = MOST_BYTES) -> Iterator[Path]:
    """A folder with the contents: the path itself if it is a folder, else a temporary one, gone afterwards.

    Raises:
        ModelMismatch: see :func:`check_archive`.
    """
    if path.is_dir():
        yield path
        return
    check_archive(path, limit=limit)
    # Windows keeps memory-mapped files; what cannot be removed is left to the system
    with tempfile.TemporaryDirectory(prefix="seglens-", ignore_cleanup_errors=True) as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise _damaged(path, error) from error
        yield Path(folder)


def _check_size(path: Path, entries: list[zipfile.ZipInfo], limit: int) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    packed = max(1, min(path.stat().st_size, sum(entry.compress_size for entry in entries)))
    if unpacked > limit or len(entries) > MOST_FILES:
        raise ModelMismatch(
            f"{path.name} would unpack to {unpacked / 2**30:.1f} GiB in {len(entries)} files; "
            f"at most {limit / 2**30:.1f} GiB in {MOST_FILES} files are allowed.",
            fix="Unpack it yourself if you trust it, and give the folder.",
        )
    if unpacked > RATIO_MATTERS_FROM and unpacked / packed > MOST_RATIO:
        raise ModelMismatch(
            f"{path.name} would grow {unpacked / packed:.0f}-fold when unpacked, as no model does.",
            fix="Do not open it; ask whoever made it what it holds.",
        )


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name, fix = entry.filename, "Do not use this file; ask whoever made it for a clean archive."
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts:
        raise ModelMismatch(f"{path.name} wants to write outside its folder: {name!r}.", fix=fix)
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ModelMismatch(f"{path.name} holds a link to another place: {name!r}.", fix=fix)
    if entry.flag_bits & ENCRYPTED:
        raise ModelMismatch(f"{path.name} is protected by a password.", fix="Unpack it yourself and give the folder.")


def _damaged(path: Path, error: Exception) -> ModelMismatch:
    return ModelMismatch(f"{path.name} is a damaged or unfinished zip archive ({error}).", fix=AGAIN)
