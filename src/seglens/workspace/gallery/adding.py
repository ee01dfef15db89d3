"""A place of an image becomes an item: painted, a box, a pixel, or an object that a model draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, ImageMismatch, MissingNeed, NoSuchRegion
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Box, Painted, Point, Region, Target
from seglens.workspace.gallery.gallery import Gallery
from seglens.workspace.gallery.item import Span
from seglens.workspace.gallery.measuring import check_model
from seglens.workspace.gallery.pictures import crop_of

if TYPE_CHECKING:
    from seglens.models.segmentation import SegmentationModel

AROUND = 16  # pixels on each side of a single pixel, so that its picture shows something
Place = tuple[tuple[int, ...], tuple[Span, ...]]


def add_region(
    gallery: Gallery,
    whole: Image,
    region: Region,
    *,
    view: Image | None = None,
    select: Mapping[str, int] | None = None,
    label: str | None = None,
    model: SegmentationModel | None = None,
    group: str | None = None,
    note: str = "",
    run: Run | None = None,
) -> int:
    """Add a region of an image to a gallery.

    Args:
        gallery: where to.
        whole: the image as it lies on disk; it is what the item remembers.
        region: which pixels, in pixels of the view; without a model a painted mask, a box or a pixel.
        view: the part of it that is looked at; by default all of it.
        select: the view's positions along further axes (T, Z).
        label: class; by default the one that the model draws there.
        model: gives class and vector; needed for objects. The gallery's own, where it has one.
        group: what must not leak; by default by the gallery's rule.
        note: for people.
        run: cancel.

    Returns:
        Its number.

    Raises:
        ModelMismatch: the gallery is of another model.
        MissingNeed: what is asked for needs a model.
        BadParameter: no class, and no model to tell.
        NoSuchRegion, ImageMismatch: the region is empty or does not fit the image.
        UnknownName: no such class.
    """
    from seglens.engine.features.groups import group_of

    view, axes = view or whole, gallery.info.axes
    if model is None:
        (position, box), vector = _place(region, view.space(axes)), None
    else:
        position, box, label, vector = _seen(gallery, view, region, label, model, run or Run())
    if label is None:
        raise BadParameter(
            "Nobody said which class this is.", fix=f"Name one of {', '.join(gallery.info.classes)}, or give the model."
        )
    start = view.offset(axes)
    position = tuple(p + s for p, s in zip(position, start, strict=True))
    box = tuple((a + s, b + s) for (a, b), s in zip(box, start, strict=True))
    shown = whole if view.channels is None else whole.with_channels(view.channels)
    return gallery.add(
        label=label, position=position, box=box, vector=vector, image=whole.fingerprint(), name=whole.name,
        source=whole.source, select=dict(select or {}), note=note,
        group=group or group_of(whole.source or whole.name, gallery.info.group, strict=False) or "",
        crop=crop_of(shown, box, axes=axes, position=position, select=select),
    )  # fmt: skip


def _place(region: Region, shape: Sequence[int]) -> Place:
    """Position and box of a region that nobody has to predict."""
    match region:
        case Box(start, stop, _):
            box = tuple((max(0, a), min(b, n)) for a, b, n in zip(start, stop, shape, strict=True))
            if any(a >= b for a, b in box):
                raise NoSuchRegion(f"The box {start} to {stop} is empty.", fix="Give a box inside the image.")
            return tuple((a + b) // 2 for a, b in box), box
        case Point(at):
            return _around(at, shape)
        case Painted(mask, _):
            from seglens.engine.features.likeness import place_of

            if np.shape(mask) != tuple(shape):
                raise ImageMismatch(
                    f"The mask has shape {np.shape(mask)}, the image {tuple(shape)}.",
                    fix="Paint the region on this image, or crop the mask to it.",
                )
            return place_of(mask)
    raise MissingNeed("Only a model knows where objects and their borders are.", fix="Give it (--model M).")


def _around(at: Sequence[int], shape: Sequence[int]) -> Place:
    if len(at) != len(shape) or not all(0 <= p < n for p, n in zip(at, shape, strict=True)):
        raise NoSuchRegion(
            f"The point {tuple(at)} lies outside the image of shape {tuple(shape)}.", fix="Choose a pixel of the image."
        )
    return tuple(at), tuple((max(0, p - AROUND), min(p + AROUND + 1, n)) for p, n in zip(at, shape, strict=True))


def _seen(
    gallery: Gallery, view: Image, region: Region, label: str | None, model: SegmentationModel, run: Run
) -> tuple[tuple[int, ...], tuple[Span, ...], str, NDArray[Any] | None]:
    """Position, box, class and vector as the model has them."""
    from seglens.engine.features import region_vector
    from seglens.engine.features.likeness import place_of
    from seglens.engine.resolve import resolve
    from seglens.models.segmentation import quiet

    info = gallery.info
    if info.model_sha256:
        check_model(gallery, model)
    with quiet(model.module):
        case = resolve(view, model, Target(label, region), run)
        mask, name = case.target.weights.cpu().numpy() > 0, case.target.name
        vector = region_vector(case, info.layer, mask) if info.layer else None
    position, box = _around(region.at, mask.shape) if isinstance(region, Point) else place_of(mask)
    if info.model_sha256 and not info.layer:
        from seglens.engine.prototypes import PrototypeView

        vector = PrototypeView(model, view, run).taken(position, name).vector
    return position, box, name, vector
