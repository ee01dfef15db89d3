"""What masks say: the class of every pixel, and which object it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.files import image_files, read_labels
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.features.entry import MaskKind
from seglens.engine.target import objects

Given = str | Path | Mapping[str, Any]
LOOKED_AT = 50  # masks, to find out what their numbers mean


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of one plane.

    Args:
        classes: class number per pixel (*space).
        instances: number of the object per pixel (*space), from 0 (none) without gaps.
    """

    classes: NDArray[Any]
    instances: NDArray[Any]

    def __post_init__(self) -> None:
        """Count the objects' pixels once."""
        object.__setattr__(self, "_sizes", np.bincount(self.instances.ravel()))

    def iou(self, box: tuple[slice, ...], inside: NDArray[np.bool_]) -> float:
        """Of a region with the object that it fits best; 0 where it meets none.

        Args:
            box: around the region.
            inside: the region in its box.
        """
        sizes: NDArray[Any] = self._sizes  # type: ignore[attr-defined]
        shared = np.bincount(self.instances[box][inside])
        met = np.flatnonzero(shared[1:]) + 1
        union = int(inside.sum()) + sizes[met] - shared[met]
        return float((shared[met] / union).max(initial=0.0))


class Masks:
    """The masks of images, found by name.

    Args:
        given: a folder whose files are called like the images, or name to file or array; arrays have the axes of
            the image in its order, without channels.
        classes: how many classes the model has.
        kind: what the numbers in them are; by default class numbers if none of the first masks has a number
            that is no class.
        run: told what they are taken for.

    Raises:
        ImageMismatch: there is no mask in the folder, or it cannot be read.
    """

    def __init__(self, given: Given | None, classes: int, kind: MaskKind | None, run: Run) -> None:
        """Find the files; read some if their kind is not said."""
        self._count = classes
        if given is None or isinstance(given, Mapping):
            self._found: dict[str, Any] = dict(given or {})
        else:
            folder = Path(given).expanduser()
            if not folder.is_dir():
                raise ImageMismatch(f"There is no folder of masks {folder}.", fix="Give a folder that holds masks.")
            self._found = {mask_name(path): path for path in image_files(folder)}
        self.kind: MaskKind = kind or "instances"
        if kind is None and self._found:
            self.kind = self._guess(run)
            told = "the numbers of objects" if self.kind == "instances" else "the numbers of classes"
            run.note(f"The numbers in the masks are taken for {told}.")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)

    def _guess(self, run: Run) -> MaskKind:
        for mask in [*self._found.values()][:LOOKED_AT]:
            run.check()
            if _numbers(mask, None).max(initial=0) >= self._count:
                return "instances"
        return "classes"

    def of(self, image: Image) -> NDArray[Any] | None:
        """The mask of an image, with the axes of the image in its order but channels; ``None`` if there is none.

        Raises:
            ImageMismatch: it does not fit the image, or holds no labels.
        """
        mask = self._found.get(image.name)
        if mask is None:
            return None
        shape = tuple(image.size(a) for a in image.kept if a != "C")
        return _numbers(mask, tuple(n for n in shape if n > 1)).reshape(shape)

    def truth(self, mask: NDArray[Any]) -> Truth:
        """What the mask of one plane (*space) says.

        Raises:
            BadParameter: a number that is no class.
        """
        if self.kind == "classes":
            if mask.max(initial=0) >= self._count:
                raise BadParameter(
                    f"The mask has the number {int(mask.max())}, and the model has {self._count} classes.",
                    fix="If its numbers are those of objects, say so (--masks-are instances).",
                )
            return Truth(mask, objects(mask))
        _, plain = np.unique(mask, return_inverse=True)
        plain = plain.reshape(mask.shape) + (0 if (mask == 0).any() else 1)
        return Truth((mask > 0).astype(np.uint8), plain)


def mask_name(path: Path) -> str:
    """The name of the image that a mask belongs to: that of its file without the ending."""
    stem = path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem
    return stem.removesuffix(".ome")


def _numbers(mask: Any, shape: tuple[int, ...] | None) -> NDArray[np.int64]:
    if isinstance(mask, str | Path):
        return read_labels(mask, shape)
    array = np.squeeze(np.asarray(mask))
    if array.dtype.kind not in "bui" or (array.dtype.kind == "i" and array.min(initial=0) < 0):
        raise ImageMismatch(
            f"A mask holds values of type {array.dtype}, which are not labels.",
            fix="Give whole numbers from 0, one per thing.",
        )
    if shape is not None and array.shape != shape:
        raise ImageMismatch(
            f"A mask has shape {array.shape}, its image {shape}.", fix="Give the mask of this very image."
        )
    return array.astype(np.int64)
