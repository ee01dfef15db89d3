"""From a question to a case: everything that can be wrong is found here, before the work starts."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, ImageMismatch, MissingNeed
from seglens.core.image import Image
from seglens.core.method import Method, Need
from seglens.core.plural import plural
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.case import Case
from seglens.engine.clean import Clean
from seglens.engine.gradients import guarded
from seglens.models.intake import check_fits, fit_intake, read_plain
from seglens.models.segmentation import SegmentationModel

if TYPE_CHECKING:
    from seglens.engine.features import FeatureBank

LARGEST = 2**26  # values of one input


def resolve(
    image: Image,
    model: SegmentationModel,
    target: Target,
    run: Run,
    *,
    method: Method | None = None,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    second_model: SegmentationModel | None = None,
    bank: FeatureBank | None = None,
    later: bool = False,
) -> Case:
    """Check a question and freeze its target on the clean image (one forward pass).

    Args:
        image: a view whose axes are the model's (and channels).
        model: the model.
        target: what to explain.
        run: progress, cancel, seed.
        method: the method that will ask; its needs are checked.
        reference, annotation, second_model, bank: what some methods need.
        later: leave the pass to whoever first asks the case for what it tells; its errors come then.

    Raises:
        ImageMismatch: the image does not fit the model, or cannot fit both models; it is constant, or holds NaN.
        NoSuchRegion: the region is empty or outside.
        UnknownName: no such class.
        MissingNeed: the method needs what is not here.
        BadParameter: reference images, a second model or a bank for a method that looks at none.
        OutOfMemory: the image does not fit into memory.
    """
    if method is not None:
        check_needs(method, model, reference=reference, annotation=annotation, second_model=second_model, bank=bank)
        _note_unused_fill(method, reference, run)
    if second_model is not None:
        check_alike(model, second_model)
    for one in (*reference, image):
        check_fits(one, model.spec)
    check_size(image, model)
    intake = fit_intake(image, model.spec)
    pixels = intake.to_input(read_plain(image, model.spec))
    run.check()
    with guarded(model):
        x = torch.from_numpy(pixels).unsqueeze(0).to(model.device)
    clean, second = Clean(model, x, target, run), None
    if second_model is not None:
        # the same pixels: the second model may draw the class elsewhere, or know no class of that name
        frozen = clean.target
        named = frozen.name if frozen.name in [c.name for c in second_model.spec.classes] else None
        region = Painted(frozen.weights.cpu().numpy())
        second = resolve(image, second_model, replace(target, of_class=named, region=region), run)
    case = Case(model, image, clean, run, intake, reference, annotation, second, bank)
    if not later:
        _ = clean.target
    if method is not None:
        method.check(case)
    return case


def check_alike(model: SegmentationModel, second: SegmentationModel) -> None:
    """Refuse two models that cannot look at the same image.

    Raises:
        ImageMismatch: they expect other axes, or another number of channels.
    """
    one, other = (f"{m.spec.axes} with {plural(len(m.spec.channels), 'channel')}" for m in (model, second))
    if one != other:
        raise ImageMismatch(
            f"Both models look at the same image, but {model.spec.name} expects {one} and {second.spec.name} {other}.",
            fix=f"Choose a second model that takes the images of {model.spec.name}.",
        )


def check_size(image: Image, model: SegmentationModel) -> None:
    """Refuse what cannot be explained in one piece.

    Raises:
        ImageMismatch: with a crop that would do.
    """
    sizes = image.space(model.spec.axes)
    if prod(sizes) * len(model.spec.channels) > LARGEST:
        middle = ",".join(f"{a}={n // 2 - 512}:{n // 2 + 512}" for a, n in zip("YX", sizes[-2:], strict=True))
        raise ImageMismatch(
            f"{image.name} has {'×'.join(map(str, sizes))} pixels, too many to explain in one piece.",
            fix=f"Explain a part of it: choose View or a region in the viewer, or --crop {middle}.",
        )


def _note_unused_fill(method: Method, reference: tuple[Image, ...], run: Run) -> None:
    """Say that a fill is not looked at; nobody chose the one that is there by default."""
    fill = next((p for p in method.parameters() if p.name == "fill"), None)
    chosen = method.values().get("fill")
    if reference and Need.REFERENCE in method.takes and fill is not None and chosen != fill.default:
        given = "reference image takes" if len(reference) == 1 else "reference images take"
        run.note(f"The {given} the place of fill={chosen}.")


def check_needs(
    method: Method,
    model: SegmentationModel,
    *,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    second_model: SegmentationModel | None = None,
    bank: FeatureBank | None = None,
) -> None:
    """Say what a method lacks.

    Raises:
        MissingNeed: in one clear sentence, with the remedy.
        BadParameter: reference images, a second model or a bank that nobody would look at.
    """
    title = method.title
    unfit = method.unfit(model.spec, model.layered)
    if unfit is not None:
        what, fix = unfit
        raise MissingNeed(f"{title} {what}.", fix=fix)
    lacking = {
        Need.REFERENCE: (
            not reference,
            "compares with other images, and none were given",
            "Add reference images (--reference FILE).",
        ),
        Need.ANNOTATION: (
            annotation is None,
            "needs a mask drawn by a person, and none was given",
            "Add an annotation.",
        ),
        Need.SECOND_MODEL: (
            second_model is None,
            "compares two models, and one was given",
            "Add a second model (--second-model M).",
        ),
        Need.BANK: (
            bank is None,
            "looks examples up in a feature bank, and none was given",
            "Build one from a folder of images (`seglens gallery bank`) and give it (--bank DIR).",
        ),
    }
    for need, (missing, what, fix) in lacking.items():
        if need in method.needs and missing:
            raise MissingNeed(f"{title} {what}.", fix=fix)
    if reference and Need.REFERENCE not in method.needs | method.takes:
        raise BadParameter(
            f"{title} compares with no other images, and {plural(len(reference), 'was', 'were')} given.",
            fix="Leave out --reference, or choose a method that takes it (`seglens methods` tells which).",
        )
    if second_model is not None and Need.SECOND_MODEL not in method.needs | method.takes:
        raise BadParameter(
            f"{title} asks one model, and two were given.",
            fix="Leave out --second-model, or choose a method that takes it (`seglens methods` tells which).",
        )
    if bank is not None and Need.BANK not in method.needs | method.takes:
        raise BadParameter(
            f"{title} looks nothing up, and a feature bank was given.",
            fix="Leave out --bank, or choose a method that takes it (`seglens methods` tells which).",
        )
