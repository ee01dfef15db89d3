"""What worker threads do for the projection; the engine is imported inside the functions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.app.napari.gallery.shelves import BankShelf
from seglens.app.napari.jobs import Emit
from seglens.core.image import Image
from seglens.core.run import Run

COMPONENTS = 3


@dataclass(frozen=True, eq=False)
class Projected:
    """A bank as points, and what is said about them.

    Args:
        bank: the bank.
        found: the projection.
        entries: what the bank says about each point.
        shelf: pictures of the points.
    """

    bank: Any
    found: Any
    entries: tuple[Any, ...]
    shelf: BankShelf

    def places(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """Which points some rows are; rows that were not drawn are left out."""
        wanted = np.asarray(sorted(set(rows)), np.int64)
        at = np.searchsorted(self.found.rows, wanted)
        inside = at < len(self.found.rows)
        at, wanted = at[inside], wanted[inside]
        return np.asarray(at[self.found.rows[at] == wanted], np.int64)

    def seen_at(self, fingerprint: str, source: str, position: Sequence[int]) -> list[int]:
        """Rows of an image whose box holds a position; the smallest box first."""
        found = []
        for row, entry in zip(self.found.rows.tolist(), self.entries, strict=True):
            same = entry.image == fingerprint or (source and entry.source == source)
            if same and all(a <= p < b for (a, b), p in zip(entry.box, position, strict=False)):
                found.append((int(np.prod([b - a for a, b in entry.box])), row))
        return [row for _, row in sorted(found)]

    def of_image(self, fingerprint: str, source: str, rows: Sequence[int]) -> list[Any]:
        """What the bank says about those of some rows that lie in an image."""
        told = [self.entries[i] for i in self.places(rows)]
        return [e for e in told if e.image == fingerprint or (source and e.source == source)]


def open_bank(run: Run, emit: Emit, *, folder: str | Path) -> Any:
    """The bank of a folder."""
    from seglens.engine.features import FeatureBank

    return FeatureBank.open(folder)


def project(run: Run, emit: Emit, *, bank: Any, clusters: Any, k: int | None) -> Projected:
    """Principal components and clusters of a bank."""
    from seglens.engine.features.projection import project as projected

    found = projected(bank, components=COMPONENTS, clusters=clusters, k=k, seed=run.seed, run=run)
    rows = [int(n) for n in found.rows]
    return Projected(bank, found, tuple(bank.entries(rows)), BankShelf(bank, rows))


def fingerprint(run: Run, emit: Emit, *, image: Image) -> str:
    """What tells an image from others."""
    return image.fingerprint()
