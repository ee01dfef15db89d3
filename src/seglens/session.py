"""The engine's door: segment an image, explain what was drawn. Check needs → run → restore → record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation
from seglens.core.image import Image
from seglens.core.method import Method, Need
from seglens.core.rerun import as_cli, as_python
from seglens.core.run import Run
from seglens.core.target import Object, Predicted, Target
from seglens.engine.artefacts import prepared
from seglens.engine.compare import by_fill, disagreement
from seglens.engine.evaluator import Evaluator
from seglens.engine.fast import at_rest
from seglens.engine.features import FeatureBank, borrowed
from seglens.engine.record import record
from seglens.engine.resolve import resolve
from seglens.engine.target import freeze, objects
from seglens.models.device import room
from seglens.models.predict import Piece, predict
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiled import TiledModel

__all__ = [
    "Estimate", "Piece", "Segmentation", "as_cli", "as_python", "compare_fills", "each_object", "estimate", "explain",
    "explain_each", "explain_many", "segment", "segment_steps",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented image; arrays have the image's axes without channels.

    Args:
        axes: axes of the arrays.
        seen: those that the model saw at once.
        labels: class per pixel, uint8.
        entropy: predictive entropy in nats, float32.
        probabilities: (K, …) float32, if asked for.
        notes: what was done to get through (a smaller tile, …).
    """

    axes: str
    seen: str
    labels: Any
    entropy: Any
    probabilities: Any = None
    notes: tuple[str, ...] = ()

    def objects(self) -> NDArray[np.int32]:
        """Numbered connected components of the predicted classes, as ``--object`` counts them.

        Time points, and slices that a 2-D model saw one by one, are numbered each for itself.
        """
        labels = np.asarray(self.labels)
        further = [a for a in self.axes if a not in self.seen]
        if not further:
            return objects(labels)
        flat = labels.reshape(-1, *labels.shape[len(further) :])
        return np.stack([objects(one) for one in flat]).reshape(labels.shape)


def segment_steps(
    image: Image, model: SegmentationModel, *, run: Run | None = None, tile: int | None = None, halo: int | None = None
) -> Iterator[Piece]:
    """Segment tile by tile; see :func:`seglens.models.predict.predict`."""
    return predict(model, image, run or Run(), tile=tile, halo=halo)


def segment(
    image: Image,
    model: SegmentationModel,
    *,
    run: Run | None = None,
    tile: int | None = None,
    halo: int | None = None,
    probabilities: bool = False,
    out: Path | None = None,
) -> Segmentation:
    """Segment a whole image.

    Args:
        image: any size; further axes are walked through.
        model: the model.
        run: progress, cancel, notes.
        tile, halo: see :func:`seglens.models.predict.predict`.
        probabilities: keep the probability of each class too.
        out: a folder for zarr arrays, so that memory stays bounded; ``None`` keeps numpy arrays.

    Raises:
        ImageMismatch, OutOfMemory, Cancelled: as :func:`segment_steps`.
    """
    run = run or Run()
    axes = "".join(a for a in image.kept if a != "C")
    order = [a for a in axes if a not in model.spec.axes]
    axes = "".join(order) + model.spec.axes
    shape = image.space(axes)
    classes = len(model.spec.classes)
    made: dict[str, Any] = {}
    for piece in segment_steps(image, model, run=run, tile=tile, halo=halo):
        if not made:
            made["labels"] = _array(out, "labels", shape, np.uint8)
            made["entropy"] = _array(out, "entropy", shape, np.float32)
            if probabilities:
                made["probabilities"] = _array(out, "probabilities", (classes, *shape), np.float32)
        where = (*(piece.position[a] for a in order), *piece.where)
        made["labels"][where] = piece.labels
        made["entropy"][where] = piece.entropy
        if probabilities:
            made["probabilities"][(slice(None), *where)] = piece.probabilities
    return Segmentation(axes, model.spec.axes, notes=tuple(run.notes), **made)


def explain(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    target: Target | None = None,
    *,
    run: Run | None = None,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    second_model: SegmentationModel | None = None,
    annotation_source: str = "",
    bank: FeatureBank | Path | str | None = None,
    tile: int | None = None,
    **parameters: Any,
) -> Explanation:
    """Ask one method one question.

    Args:
        method: name (with ``parameters``) or a configured method.
        image: a view whose axes are the model's (and channels).
        model: the model; left exactly as it was.
        target: what to explain; by default the most frequent predicted class.
        run: progress, cancel, seed.
        reference, annotation, second_model: what some methods need.
        annotation_source: the file of the annotation, for the record.
        bank: a feature bank or its folder, for methods that look examples up.
        tile: explain what is drawn tile by tile of this side; by default the image is looked at in one piece.
        parameters: the method's parameters, with a name.

    Returns:
        The answer with its record.

    Raises:
        SegLensError: whatever a person can put right; see :mod:`seglens.core.errors`.
    """
    run, target = run or Run(), target or Target()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    model = _tiled(model, tile)
    start = time.perf_counter()
    other = at_rest(second_model) if second_model else nullcontext()
    with at_rest(model), other, borrowed(bank) as opened:
        case = resolve(
            image, model, target, run,
            method=recipe, reference=reference, annotation=annotation, second_model=second_model, bank=opened,
            later=True,
        )  # fmt: skip
        answer = recipe.run(prepared(recipe, case))
        seconds = time.perf_counter() - start
        given = {
            "annotation": _drawn(annotation, annotation_source),
            "second_model": second_model.source if second_model else "",
            "bank": "" if opened is None else str(opened.folder),
        }
        return answer.with_record(record(recipe, case, target, seconds, tile=tile, **given))


def explain_each(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    targets: Sequence[Target],
    *,
    run: Run | None = None,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    annotation_source: str = "",
    bank: FeatureBank | Path | str | None = None,
    tile: int | None = None,
    **parameters: Any,
) -> Iterator[Explanation]:
    """Ask one method about many targets (fifty cells, every class) of one image; the answers come one by one.

    A perturbed copy is scored for all of them at once, so many cost about as much as one, wherever the copies do
    not depend on the target. Targets whose regions do not fit into ``run.memory`` together are asked in turns.

    Raises:
        SegLensError: as :func:`explain`.
    """
    run = run or Run()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    model, told = _tiled(model, tile), {"annotation": _drawn(annotation, annotation_source)}
    with at_rest(model), borrowed(bank) as opened:
        told["bank"] = "" if opened is None else str(opened.folder)
        given: dict[str, Any] = {"reference": reference, "annotation": annotation, "bank": opened}
        first = resolve(image, model, targets[0], run, method=recipe, **given)
        labels = first.labels
        turn = max(1, room(model.device, run) // first.target.weights.nbytes)
        for begin in range(0, len(targets), turn):
            some = targets[begin : begin + turn]
            frozen = tuple(freeze(t, first.logits, model.spec, labels) for t in some)
            shared = Evaluator(model, first.x, first.logits, frozen, run)
            for target, one in zip(some, frozen, strict=True):
                start = time.perf_counter()
                case = first.about(one, shared=shared)
                recipe.check(case)
                answer = recipe.run(prepared(recipe, case))
                seconds = time.perf_counter() - start
                yield answer.with_record(record(recipe, case, target, seconds, tile=tile, **told))


def explain_many(
    method: str | Method, image: Image, model: SegmentationModel, targets: Sequence[Target], **more: Any
) -> list[Explanation]:
    """All answers of :func:`explain_each`."""
    return list(explain_each(method, image, model, targets, **more))


def each_object(
    image: Image, model: SegmentationModel, like: Target, *, run: Run | None = None, tile: int | None = None
) -> list[Target]:
    """A target for every predicted object, for :func:`explain_each`; one forward pass.

    Args:
        image: a view whose axes are the model's (and channels).
        model: the model.
        like: class (``None``: objects of every class, each asked as its own), value and reduction.
        run: cancel.
        tile: as in :func:`explain`.

    Raises:
        NoSuchRegion: the model finds no such object.
        SegLensError: as :func:`explain`.
    """
    with at_rest(model):
        case = resolve(image, _tiled(model, tile), Target(like.of_class, Predicted()), run or Run())
    numbered = objects(case.labels)
    wanted = numbered > 0 if like.of_class is None else case.labels == case.target.index
    found = [int(n) for n in np.unique(numbered[wanted]) if n > 0]
    return [replace(like, region=Object(n)) for n in found]


@dataclass(frozen=True)
class Estimate:
    """What an explanation will take.

    Args:
        forwards: in forward passes of the whole image; ``None`` if the method cannot tell.
        plain: forward passes of a straight loop.
        seconds: on this machine, from a measured pass of this model.
        text: the same as a sentence; empty if nothing is known.
    """

    forwards: float | None = None
    plain: int = 0
    seconds: float | None = None
    text: str = ""


def estimate(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    target: Target | None = None,
    *,
    run: Run | None = None,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    bank: FeatureBank | Path | str | None = None,
    **parameters: Any,
) -> Estimate:
    """Say what an explanation will take, before it is made; costs two or three forward passes itself.

    Raises:
        SegLensError: as :func:`explain`.
    """
    run = run or Run()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    with at_rest(model), borrowed(bank) as opened:
        given: dict[str, Any] = {"reference": reference, "annotation": annotation, "bank": opened}
        case = resolve(image, model, target or Target(), run, method=recipe, **given)
        passes = recipe.passes(case)
        if passes is None:
            return Estimate()
        forwards, plain = passes
        seconds = forwards * case.evaluator.seconds()
    return Estimate(forwards, plain, seconds, _cost_told(forwards, plain, seconds))


def compare_fills(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    target: Target | None = None,
    *,
    fills: Sequence[str] = ("mean", "blur", "inpaint", "noise", "permutation", "black", "white"),
    run: Run | None = None,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    annotation_source: str = "",
    tile: int | None = None,
    **parameters: Any,
) -> Explanation:
    """Ask one method with several fills: where the maps differ, the answer depends on the fill and not on the image.

    ``run.on_partial`` hears the deviation over the fills that are done.

    Returns:
        The deviation of the maps over the fills, the maps themselves, and how alike they rank the pixels.

    Raises:
        BadParameter: the method has no fill.
        SegLensError: as :func:`explain`.
    """
    run, target = run or Run(), target or Target()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    if "fill" not in recipe.values():
        raise BadParameter(
            f"{recipe.title} fills nothing, so there are no fills to compare.", fix="Choose another method."
        )
    if reference and Need.REFERENCE in recipe.takes:
        raise BadParameter(
            f"{recipe.title} starts at the reference images and would look at no fill.",
            fix="Leave out --reference, or compare no fills.",
        )
    given: dict[str, Any] = {"reference": reference, "annotation": annotation}
    start = time.perf_counter()
    with at_rest(model):
        case = resolve(image, _tiled(model, tile), target, run, method=recipe, **given)
        maps = by_fill(recipe, case, fills)
    seconds, drawn = time.perf_counter() - start, _drawn(annotation, annotation_source)
    told = record(recipe, case, target, seconds, compare_fills=True, tile=tile, annotation=drawn)
    return disagreement(recipe.title, maps, model.spec.axes).with_record(told)


def _cost_told(forwards: float, plain: int, seconds: float) -> str:
    saved = f" instead of {plain}" if plain > 1.5 * forwards else ""
    number = (
        f"About {forwards:.0f}" if forwards >= 10 else f"About {forwards:.1f}" if forwards >= 0.1 else "Less than 0.1"
    )
    time_told = (
        "less than a second" if seconds < 1 else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    )
    return f"{number} forward passes{saved}, {time_told} here."


def _tiled(model: SegmentationModel, tile: int | None) -> SegmentationModel:
    return model if tile is None else TiledModel(model, tile)


def _drawn(annotation: NDArray[Any] | None, source: str) -> str:
    """What the record calls an annotation; one that never was a file stands as ``MASK``."""
    return "" if annotation is None else source or "MASK"


def _array(out: Path | None, name: str, shape: tuple[int, ...], dtype: type) -> Any:
    if out is None:
        return np.zeros(shape, dtype)
    import zarr

    chunks = tuple(min(n, 512 if i >= len(shape) - 2 else 1) for i, n in enumerate(shape))
    return zarr.create_array(out / f"{name}.zarr", shape=shape, dtype=dtype, chunks=chunks)
