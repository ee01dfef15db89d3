"""What lies beside a model's weights: further files of its folder or archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seglens.core.errors import UnknownName
from seglens.models.archives import opened
from seglens.models.loaders.detect import locate


@contextmanager
def folder_of(source: str) -> Iterator[Path | None]:
    """The folder that a model was loaded from, an archive unpacked for the while; ``None`` if it came from neither.

    Args:
        source: :attr:`seglens.models.segmentation.SegmentationModel.source`.

    Raises:
        ModelMismatch: the archive is damaged or not safe.
    """
    place = _place(source)
    if place is None:
        yield None
    else:
        with opened(place) as folder:
            yield folder


def find(folder: Path, name: str) -> Path | None:
    """A file in a folder or in one inside it, as archives have them; ``None`` if there is none."""
    return next(iter((*folder.glob(name), *folder.glob(f"*/{name}"))), None)


def _place(source: str) -> Path | None:
    try:
        path, _ = locate(source)
    except UnknownName:
        return None  # made in memory, never a file
    place = path.parent if path.is_file() and path.name == "model.json" else path
    return place if place.is_dir() or place.suffix == ".zip" else None
