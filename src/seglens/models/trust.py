"""Trust: asked once for each file that can run code, and remembered by its sha256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seglens.core.errors import ModelMismatch, UntrustedModel
from seglens.core.places import home, write_whole

BOOK = "trust.json"
CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces.

    Raises:
        ModelMismatch: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
    except OSError as error:
        raise ModelMismatch(
            f"{path.name} cannot be read: {error.strerror}.", fix="Check that the file exists and that you may read it."
        ) from error
    return digest.hexdigest()


def granted() -> dict[str, Any]:
    """What is trusted: sha256 to the name of the file and when trust was given.

    An unreadable list counts as empty: the worst that follows is that the question is asked again.
    """
    try:
        book = json.loads((home() / BOOK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return book if isinstance(book, dict) else {}


def grant(sha256: str, name: str) -> None:
    """Trust a file from now on; ``name`` is kept so that a person recognises it in the list."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    _write(granted() | {sha256: {"name": name, "when": when}})


def revoke(sha256: str) -> None:
    """Trust a file no longer; nothing happens if it was not trusted."""
    _write({key: value for key, value in granted().items() if key != sha256})


def _write(book: dict[str, Any]) -> None:
    write_whole(home() / BOOK, json.dumps(book, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Trust:
    """Whether files that can run code may be loaded. Use :meth:`never` or :meth:`always`."""

    grants: bool

    @classmethod
    def never(cls) -> Trust:
        """Load only what was trusted before; refuse the rest."""
        return cls(grants=False)

    @classmethod
    def always(cls) -> Trust:
        """Trust what is asked for, and remember it."""
        return cls(grants=True)

    def holds(self, sha256: str) -> bool:
        """Whether this file would be let in."""
        return self.grants or sha256 in granted()

    def ask(self, name: str, sha256: str, why: str) -> None:
        """Let a file in or refuse it; a new grant is remembered.

        Args:
            name: the file, for people.
            sha256: its fingerprint.
            why: what loading it does, as the rest of "NAME …", for example "can run code".

        Raises:
            UntrustedModel: nobody has allowed it.
        """
        if sha256 in granted():
            return
        if not self.grants:
            raise UntrustedModel(
                f"{name} {why}, and it is not trusted yet (sha256 {sha256}).",
                fix="If you know where it comes from, load it with --trust, or press Trust this file in the plugin; "
                "you are asked once for each file.",
                sha256=sha256,
            )
        grant(sha256, name)
