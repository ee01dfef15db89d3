"""The engine's door: segment an image, explain what was drawn. Check needs → run → restore → record."""

from __future__ import annotations

import datetime
import importlib
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seglens import __version__
from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Layer, Record
from seglens.core.image import Image
from seglens.core.method import Method
from seglens.core.rerun import as_cli, as_python
from seglens.core.run import Run
from seglens.core.target import Object, Predicted, Target
from seglens.engine.artefacts import prepared
from seglens.engine.case import Case
from seglens.engine.compare import disagreement
from seglens.engine.evaluator import Evaluator
from seglens.engine.resolve import resolve
from seglens.engine.target import freeze, objects
from seglens.models.predict import Piece, predict
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.tiled import TiledModel

__all__ = [
    "Estimate", "Piece", "Segmentation", "as_cli", "as_python", "compare_fills", "each_object", "estimate", "explain",
    "explain_many", "segment", "segment_steps",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented image; arrays have the image's axes without channels.

    Args:
        axes: axes of the arrays.
        labels: class per pixel, uint8.
        entropy: predictive entropy in nats, float32.
        probabilities: (K, …) float32, if asked for.
        notes: what was done to get through (a smaller tile, …).
    """

    axes: str
    labels: Any
    entropy: Any
    probabilities: Any = None
    notes: tuple[str, ...] = ()

    def objects(self) -> NDArray[np.int32]:
        """Numbered connected components of the predicted classes, as ``--object`` counts them.

        Time points, and slices that a 2-D model saw one by one, are numbered each for itself.
        """
        labels = np.asarray(self.labels)
        further = [a for a in self.axes if a not in "ZYX"]
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
    return Segmentation(axes, notes=tuple(run.notes), **made)


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
        tile: explain what is drawn tile by tile of this side; by default the image is looked at in one piece.
        parameters: the method's parameters, with a name.

    Returns:
        The answer with its record.

    Raises:
        SegLensError: whatever a person can put right; see :mod:`seglens.core.errors`.
    """
    run, target = run or Run(), target or Target()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    model = model if tile is None else TiledModel(model, tile)
    start = time.perf_counter()
    with quiet(model.module):
        case = resolve(
            image, model, target, run,
            method=recipe, reference=reference, annotation=annotation, second_model=second_model,
        )  # fmt: skip
        answer = recipe.run(prepared(recipe, case))
    asked: dict[str, Any] = {} if tile is None else {"tile": tile}
    if annotation is not None:
        asked["annotation"] = annotation_source or "MASK"
    made = record(recipe, case, target, time.perf_counter() - start)
    return answer.with_record(replace(made, asked=made.asked | asked))


def explain_many(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    targets: Sequence[Target],
    *,
    run: Run | None = None,
    **parameters: Any,
) -> list[Explanation]:
    """Ask one method about many targets (fifty cells, every class) of one image.

    A perturbed copy is scored for all of them at once, so many cost about as much as one, wherever the copies do
    not depend on the target.

    Raises:
        SegLensError: as :func:`explain`.
    """
    run = run or Run()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    answers = []
    with quiet(model.module):
        first = resolve(image, model, targets[0], run, method=recipe)
        labels = first.labels
        frozen = (first.target, *(freeze(t, first.logits, model.spec, labels) for t in targets[1:]))
        shared = Evaluator(model, first.x, first.logits, frozen, run)
        for target, one in zip(targets, frozen, strict=True):
            start = time.perf_counter()
            case = replace(first, target=one, shared=shared)
            recipe.check(case)
            answer = recipe.run(prepared(recipe, case))
            answers.append(answer.with_record(record(recipe, case, target, time.perf_counter() - start)))
    return answers


def each_object(image: Image, model: SegmentationModel, like: Target, *, run: Run | None = None) -> list[Target]:
    """A target for every predicted object, for :func:`explain_many`; one forward pass.

    Args:
        image: a view whose axes are the model's (and channels).
        model: the model.
        like: class (``None``: objects of every class, each asked as its own), value and reduction.
        run: cancel.

    Raises:
        NoSuchRegion: the model finds no such object.
        SegLensError: as :func:`explain`.
    """
    with quiet(model.module):
        case = resolve(image, model, Target(like.of_class, Predicted()), run or Run())
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
    annotation: NDArray[Any] | None = None,
    **parameters: Any,
) -> Estimate:
    """Say what an explanation will take, before it is made; costs two or three forward passes itself.

    Raises:
        SegLensError: as :func:`explain`.
    """
    run = run or Run()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    with quiet(model.module):
        case = resolve(image, model, target or Target(), run, method=recipe, annotation=annotation)
        passes = recipe.passes(case)
        if passes is None:
            return Estimate()
        forwards, plain = passes
        seconds = forwards * case.evaluator.seconds()
    saved = f" instead of {plain}" if plain > 1.5 * forwards else ""
    time_told = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    told = f"{forwards:.0f}" if forwards >= 10 else f"{forwards:.1f}"
    return Estimate(forwards, plain, seconds, f"About {told} forward passes{saved}, {time_told} here.")


def compare_fills(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    target: Target | None = None,
    *,
    fills: Sequence[str] = ("mean", "blur", "inpaint", "noise", "permutation", "black", "white"),
    run: Run | None = None,
    annotation: NDArray[Any] | None = None,
    annotation_source: str = "",
    **parameters: Any,
) -> Explanation:
    """Ask one method with several fills: where the maps differ, the answer depends on the fill and not on the image.

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
    start = time.perf_counter()
    maps: dict[str, Layer] = {}
    with quiet(model.module):
        case = resolve(image, model, target, run, method=recipe, annotation=annotation)
        for fill in fills:
            one = type(recipe).from_values(recipe.values() | {"fill": fill})
            try:
                maps[fill] = one.run(prepared(one, case)).map
            except BadParameter as error:
                run.note(f"Left out: {error.what}")
    made = record(recipe, case, target, time.perf_counter() - start)
    asked = made.asked | {"compare-fills": True}
    if annotation is not None:
        asked["annotation"] = annotation_source or "MASK"
    return disagreement(recipe.title, maps).with_record(replace(made, asked=asked))


def record(method: Method, case: Case, target: Target, seconds: float) -> Record:
    """What is needed to run it again."""
    image, spec = case.image, case.model.spec
    told = target.describe()
    told["resolved"] = {"class": case.target.name, "pixels": case.target.pixels, "score": case.clean_score}
    return Record(
        method=method.name,
        parameters=method.values(),
        target=told,
        model={
            "name": spec.name,
            "source": case.model.source,
            "options": case.model.options,
            "sha256": case.model.fingerprint(),
        },
        image=_image_record(image, spec.axes),
        seed=case.run.seed,
        versions=_versions(),
        device=str(case.model.device),
        cost=_cost(case),
        seconds=round(seconds, 3),
        notes=list(case.run.notes),
        engine=dict(case.run.engine),
        asked={} if case.run.precision == "full" else {"precision": case.run.precision},
        fidelity=str(method.fidelity),
        cite=method.cite,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _cost(case: Case) -> dict[str, Any]:
    cost = case.run.cost
    told: dict[str, Any] = {"forwards": cost.forwards, "backwards": cost.backwards}
    if cost.plain:
        told |= {"forwards of a plain loop": cost.plain, "in forwards of the whole image": round(cost.images, 2)}
    return told


def _image_record(image: Image, space: str) -> dict[str, Any]:
    parts = dict(zip(image.axes, image.index, strict=True))
    full = dict(zip(image.axes, image.data.shape, strict=True))
    crop = {
        a: f"{p.start}:{p.stop}" for a, p in parts.items() if isinstance(p, slice) and (p.start, p.stop) != (0, full[a])
    }
    return {
        "name": image.name,
        "source": image.source,
        "axes": image.axes,
        "shape": list(image.data.shape),
        "select": {a: p for a, p in parts.items() if not isinstance(p, slice)},
        "crop": crop,
        "channels": list(image.channels) if image.channels else None,
        "pixel_size": list(image.scale(space)),
        "unit": image.unit,
        "sha256": image.fingerprint(),
    }


def _versions() -> dict[str, str]:
    seen = {"seglens": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("numpy", "scipy", "skimage"):
        seen[name] = str(importlib.import_module(name).__version__)
    return seen


def _array(out: Path | None, name: str, shape: tuple[int, ...], dtype: type) -> Any:
    if out is None:
        return np.zeros(shape, dtype)
    import zarr

    chunks = tuple(min(n, 512 if i >= len(shape) - 2 else 1) for i, n in enumerate(shape))
    return zarr.create_array(out / f"{name}.zarr", shape=shape, dtype=dtype, chunks=chunks)
