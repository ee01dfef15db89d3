"""Where SegLens keeps what belongs to the person and not to a project: remembered trust, settings, measurements."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_data_dir

from seglens.core.errors import BadParameter


def home() -> Path:
    """The user's SegLens folder: ``SEGLENS_HOME`` if set, else the place the system gives; made on demand.

    Raises:
        BadParameter: the folder cannot be made.
    """
    folder = Path(os.environ.get("SEGLENS_HOME") or user_data_dir("seglens", appauthor=False)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadParameter(
            f"The folder {folder} for SegLens' own files cannot be made: {error.strerror}.",
            fix="Set the environment variable SEGLENS_HOME to a folder that you may write.",
        ) from error
    return folder


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old text or the new one, never a half.

    Raises:
        BadParameter: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadParameter(
            f"{path} cannot be written: {error.strerror}.",
            fix="Free some space, or set SEGLENS_HOME to a folder that you may write.",
        ) from error


def recall(shelf: str, key: str) -> Any:
    """Plain data that :func:`remember` kept.

    Raises:
        KeyError: nothing is there, or it cannot be read.
    """
    try:
        return json.loads((home() / shelf / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, BadParameter) as error:
        raise KeyError(key) from error


def remember(shelf: str, key: str, data: Any) -> None:
    """Keep plain data for the next time; where nothing can be written, it is found out anew then."""
    with suppress(OSError, BadParameter):
        folder = home() / shelf
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{key}.json", json.dumps(data))
