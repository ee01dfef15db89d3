"""Crops of many places: an image is opened, and its contrast looked at, once for all that lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.workspace.gallery.item import Span
from seglens.workspace.gallery.pictures import MARGIN, Contrast, contrast_of, crop_of


class Cutter:
    """Cuts crops out of files; keeps the last image open, so ask image by image.

    Args:
        axes: of boxes and positions.
        margin: pixels around a box.
    """

    def __init__(self, axes: str, margin: int = MARGIN) -> None:
        """Nothing is opened yet."""
        self._axes, self._margin = axes, margin
        self._open: tuple[str, Image] | None = None
        self._contrast: tuple[Any, Contrast] | None = None

    def __call__(
        self, source: str, box: Sequence[Span], position: Sequence[int], select: Mapping[str, int]
    ) -> NDArray[np.uint8]:
        """The picture of a box.

        Raises:
            ImageMismatch: the image cannot be opened.
            BadParameter: the box lies outside.
        """
        if self._open is None or self._open[0] != source:
            self._open, self._contrast = (source, open_image(source)), None
        image, plane = self._open[1], tuple(sorted(select.items()))
        if self._contrast is None or self._contrast[0] != plane:
            self._contrast = (plane, contrast_of(image, select))
        return crop_of(
            image, box, self._margin, axes=self._axes, position=position, select=select, contrast=self._contrast[1]
        )
