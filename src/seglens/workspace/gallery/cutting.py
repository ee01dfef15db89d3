"""Images of items opened again, as they were when an item was chosen, and crops of many places in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import ImageMismatch
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.workspace.gallery.item import Span
from seglens.workspace.gallery.pictures import MARGIN, Contrast, contrast_of, crop_of

# What a person may have said of a file that does not tell (--axes), and which channels (--channels).
_AXES = {
    2: ("YX",),
    3: ("CYX", "YXC", "ZYX", "TYX"),
    4: ("CZYX", "ZCYX", "TCYX", "ZYXC", "TYXC", "TZYX"),
    5: ("TCZYX", "TZCYX", "TZYXC"),
}
_CHANNELS = ((0, 0, 0), (0,), (0, 1), (0, 1, 2))


def open_as(source: str, fingerprint: str, axes: str, select: Mapping[str, int] | None = None) -> Image:
    """An image as it was when its fingerprint was taken: with the axes and channels that were named then.

    Args:
        source: path or ``sample:NAME``.
        fingerprint: of the image, or of its view at ``select``; empty takes the image as it opens.
        axes: that the view has to have, such as ``YX``.
        select: positions along further axes.

    Raises:
        ImageMismatch: the image cannot be opened, or holds other pixels.
    """
    if not source:
        raise ImageMismatch("The image never was a file.", fix="Save it, and build the bank from files.")
    image = open_image(source)
    if not fingerprint:
        return image
    for view in views(image, axes):
        if fingerprint in fingerprints(view, select or {}):
            return view
    raise ImageMismatch(
        f"{source} does not hold the pixels that were looked at: another file, another part of it, or changed since.",
        fix="Bring back the image, or look for it elsewhere with `seglens gallery relocate`.",
    )


def views(image: Image, axes: str) -> Iterator[Image]:
    """The image as it opens, then with other axes and channels that somebody may have named."""
    yield image
    for names in _AXES.get(image.data.ndim, ()):
        if set(axes) <= set(names):
            plain = replace(image, axes=names, index=(), channels=None)
            yield plain
            have = plain.size("C")
            yield from (plain.with_channels(some) for some in _CHANNELS if max(some) < have)


def fingerprints(view: Image, select: Mapping[str, int]) -> set[str]:
    """Of a view, and of its part at some positions, if it has them."""
    found = {view.fingerprint()}
    if select and all(axis in view.kept and at < view.size(axis) for axis, at in select.items()):
        found.add(view.select(**select).fingerprint())
    return found


class Cutter:
    """Cuts crops out of files; keeps the last image open, so ask image by image.

    Args:
        axes: of boxes and positions.
        margin: pixels around a box.
    """

    def __init__(self, axes: str, margin: int = MARGIN) -> None:
        """Nothing is opened yet."""
        self._axes, self._margin = axes, margin
        self._open: tuple[tuple[str, str], Image] | None = None
        self._contrast: tuple[Any, Contrast] | None = None

    def __call__(
        self, source: str, image: str, box: Sequence[Span], position: Sequence[int], select: Mapping[str, int]
    ) -> NDArray[np.uint8]:
        """The picture of a box; ``image`` is the fingerprint of its image.

        Raises:
            ImageMismatch: the image cannot be opened, or is another one.
            BadParameter: the box lies outside.
        """
        if self._open is None or self._open[0] != (source, image):
            self._open, self._contrast = ((source, image), open_as(source, image, self._axes, select)), None
        view, plane = self._open[1], tuple(sorted(select.items()))
        if self._contrast is None or self._contrast[0] != plane:
            self._contrast = (plane, contrast_of(view, select))
        return crop_of(
            view, box, self._margin, axes=self._axes, position=position, select=select, contrast=self._contrast[1]
        )
