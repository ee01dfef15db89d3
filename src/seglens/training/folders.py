"""Where images and masks lie in a data folder, and which share each belongs to.

::

    DATA/images/NAME.png          grey or colour; volumes as TIFF or NIfTI
    DATA/masks/NAME.tif           object numbers or class numbers of the same size; 0 is background

    DATA/masks/WHO/NAME.tif       several annotators, a folder each; what all agree on may lie in DATA/gold
    DATA/train/images …           ready-made shares: train, val and test with images and masks in each
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seglens.core.errors import ImageMismatch

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".nii", ".nii.gz", ".npy")
SHARES = {"train": 0.60, "validation": 0.15, "test": 0.25}
# Other names that such folders bear.
MASKS = ("masks", "labels", "experts", "annotators")
GOLD = "gold"
READY = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Files:
    """The files of one sample.

    Args:
        image: the picture.
        mask: the truth; ``None`` where there are only annotators.
        annotators: the mask of each by their name.
    """

    image: Path
    mask: Path | None
    annotators: Mapping[str, Path] = field(default_factory=dict)


def find_pairs(data: Path) -> dict[str, Files]:
    """The files of every name in a data folder; in one with ready-made shares a name is ``train/NAME``.

    Raises:
        ImageMismatch: no such folder, no image in it, or an image without a mask.
    """
    ready = _ready(data)
    if not ready:
        return _pairs(data)
    return {f"{share}/{name}": files for share, folder in ready.items() for name, files in _pairs(folder).items()}


def split_folder(data: Path) -> dict[str, list[str]]:
    """Names of the shares ``train``, ``validation`` and ``test``: the ready-made ones, or :func:`split_names`.

    Raises:
        ImageMismatch: as :func:`find_pairs` and :func:`split_names`, or a share is missing; ``test`` may be.
    """
    names = find_pairs(data)
    if not _ready(data):
        return split_names(names)
    split = {share: [name for name in names if name.startswith(f"{share}/")] for share in SHARES}
    for share in ("train", "validation"):
        if not split[share]:
            raise ImageMismatch(
                f"{data} has ready-made shares, but none called {READY[share][0]}.",
                fix=f"Put images and masks into {data / READY[share][0]}, or all into {data / 'images'} and masks.",
            )
    return split


def _ready(data: Path) -> dict[str, Path]:
    """The folder of each ready-made share."""
    if (data / "images").is_dir():
        return {}
    found = {share: [data / n for n in names if (data / n / "images").is_dir()] for share, names in READY.items()}
    return {share: folders[0] for share, folders in found.items() if folders}


def _pairs(data: Path) -> dict[str, Files]:
    images = _by_stem(data / "images")
    folder = next((data / name for name in MASKS if (data / name).is_dir()), data / MASKS[0])
    agreed = {**_by_stem(folder), **_by_stem(data / GOLD)}
    people = {p.name: _by_stem(p) for p in _folders(folder)}
    people = {who: masks for who, masks in people.items() if masks}
    if not images:
        raise ImageMismatch(
            f"{data} holds no images.",
            fix=f"Put images into {data / 'images'} and masks of the same names into {data / 'masks'}.",
        )
    found = {
        name: Files(images[name], agreed.get(name), {w: masks[name] for w, masks in people.items() if name in masks})
        for name in sorted(images)
    }
    lonely = [name for name, files in found.items() if files.mask is None and not files.annotators]
    if lonely:
        raise ImageMismatch(
            f"{len(lonely)} of {len(images)} images have no mask, the first is {images[lonely[0]].name}.",
            fix=f"Save its mask as {folder / (lonely[0] + '.tif')}, or take the image out.",
        )
    return found


def _folders(folder: Path) -> Iterator[Path]:
    yield from (p for p in sorted(folder.iterdir()) if p.is_dir()) if folder.is_dir() else ()


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = [p for p in sorted(folder.iterdir()) if p.name.lower().endswith(SUFFIXES)]
    return {p.name.removesuffix(".gz").rpartition(".")[0]: p for p in files}


def split_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of the shares ``train``, ``validation`` and ``test``, about 60, 15 and 25 of 100.

    A name's share follows from the name alone (its SHA-256), so that adding images moves none; only where a
    small folder would leave a share empty are the hashes ranked instead.

    Raises:
        ImageMismatch: fewer than three names.
    """
    places = {name: int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12 for name in sorted(names)}
    if len(places) < 3:
        raise ImageMismatch(
            f"There are {len(places)} images, too few to train, validate and test with.",
            fix="Add images with masks: three at the least, thirty or more for a useful model.",
        )
    split = _cut(places)
    if not all(split.values()):
        ranked = sorted(places, key=places.__getitem__)
        held = [max(1, round(SHARES[share] * len(ranked))) for share in ("validation", "test")]
        parts = np.split(ranked, np.cumsum(held))
        split = {share: sorted(map(str, parts[i])) for share, i in (("train", 2), ("validation", 0), ("test", 1))}
    return split


def _cut(places: dict[str, float]) -> dict[str, list[str]]:
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    split: dict[str, list[str]] = {share: [] for share in SHARES}
    for name, place in places.items():
        split[list(SHARES)[int(np.searchsorted(bounds, place, side="right"))]].append(name)
    return split
