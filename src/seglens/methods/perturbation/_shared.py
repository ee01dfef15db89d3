"""What perturbation methods share: words of their forms, and where windows go."""

from __future__ import annotations

from typing import Annotated, Literal

from seglens.core.errors import NoSuchRegion
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.perturb import Box, windows

Where = Annotated[
    Literal["whole", "context", "object"],
    Param("Cover anything, only windows that leave the region alone, or only pixels of the region."),
]
Scale = Annotated[
    Literal["none", "min-max", "z-score"],
    Param("How the map is scaled; metric targets such as dice barely move and may need it."),
]


def placed(case: Case, window: int | None, stride: int | None, where: str) -> list[Box]:
    """Windows over the image, by default 1/16 of it and half overlapping, kept as ``where`` says.

    Raises:
        NoSuchRegion: none is left.
    """
    size = min(window or max(4, min(case.shape) // 16), *case.shape)
    boxes = windows(case.shape, size, stride or max(1, size // 2))
    if where != "whole":
        touches = where == "object"
        boxes = [box for box in boxes if case.target.region[box].any() == touches]
    if not boxes:
        raise NoSuchRegion(
            f"No window of {size} pixels lies outside the region to explain.",
            fix="Use a smaller --window, or --where whole.",
        )
    return boxes
