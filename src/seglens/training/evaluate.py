"""Scores of a trained model on images that it was not trained on.

``python -m seglens.training.evaluate MODEL_DIR DATA`` prints Dice and IoU per image, their mean and median, and
the five worst images. Without DATA it evaluates a model of drawn pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seglens.core.errors import BadParameter, SegLensError
from seglens.core.run import Run
from seglens.models.loaders import load_model
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.spec import read_spec
from seglens.sample_data.shortcut import HEALTHY, INFECTED, Markers, shortcut_image
from seglens.training.data import Sample, draw, normalise, read_folder
from seglens.training.export import TRAINING
from seglens.training.folders import find_pairs
from seglens.training.scores import means, overlap, summary


def evaluate(model_dir: Path, data: Path | None = None, *, run: Run | None = None) -> dict[str, Any]:
    """Score a trained model, foreground (all classes but 0) against background.

    Args:
        model_dir: a folder that :func:`seglens.training.train` wrote.
        data: a folder of images and masks. Images that trained or validated this model are left out. ``None``
            for a model of drawn pictures: its held-out pictures are drawn again.
        run: progress and cancel, once per image.

    Returns:
        ``images`` (name to ``dice`` and ``iou``), ``dice`` and ``iou`` (``mean``, ``median``), ``worst`` (names),
        ``classes`` where the truth has them (name to mean ``dice`` and ``iou``, and ``images`` that have it), and
        ``shortcut`` for a model of drawn pictures (:func:`shortcut_rates`).

    Raises:
        ModelMismatch: the folder holds no such model.
        UnknownName: there is no such folder.
        ImageMismatch: the data folder cannot be used.
        BadParameter: no image is left to score, or no data given to a model that needs some.
    """
    model, record = load_model(model_dir, device="cpu"), read_spec(model_dir / TRAINING)
    if data is None:
        samples = draw(_drawn(record), record["crop"])
    else:
        used = {*record["split"]["train"], *record["split"]["validation"]}
        names = [name for name in find_pairs(data) if name not in used]
        samples = read_folder(data, names, model.spec, classes=record.get("truth") == "classes")
    if not samples:
        raise BadParameter(
            "Every image of this folder trained or validated the model.",
            fix="Give a folder with images it has not seen.",
        )
    result = score(model, samples, run or Run())
    if record["synthetic"]:
        result["shortcut"] = shortcut_rates(model, [_seed(n) for n in _drawn(record)], record["crop"])
    return result


def _drawn(record: dict[str, Any]) -> list[str]:
    if not record["synthetic"]:
        raise BadParameter(
            "This model was trained on images from a folder.", fix="Name the folder with images and masks."
        )
    return list(record["split"]["test"])


def _seed(name: str) -> int:
    return int(name.rpartition("-")[2])


def score(model: SegmentationModel, samples: Sequence[Sample], run: Run) -> dict[str, Any]:
    """Dice and IoU of the foreground, per image and summed up; of each class where there are more; see evaluate."""
    images: dict[str, dict[str, float]] = {}
    classes: dict[str, list[dict[str, float]]] = {}
    for done, sample in enumerate(samples):
        run.progress(done, len(samples), f"scoring {sample.name}")
        labels = predict(model, sample.image)
        images[sample.name] = _rounded(overlap(labels > 0, sample.truth > 0))
        for number, known in enumerate(model.spec.classes if sample.classes else ()):
            found, there = labels == number, sample.truth == number
            if number and (found.any() or there.any()):
                classes.setdefault(known.name, []).append(overlap(found, there))
    each = {name: _rounded(means(scores)) | {"images": len(scores)} for name, scores in classes.items()}
    return {"images": images, **summary(images), **({"classes": each} if len(each) > 1 else {})}


def _rounded(scores: Mapping[str, float]) -> dict[str, Any]:
    return {measure: round(value, 4) for measure, value in scores.items()}


def predict(model: SegmentationModel, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Class numbers (*space) of a whole image (*space, C), in one piece."""
    x = torch.from_numpy(np.moveaxis(normalise(image, model.spec), -1, 0).copy())[None]
    with torch.inference_mode(), quiet(model.module):
        labels = model.logits(x.to(model.device)).argmax(1)[0]
    return labels.to(torch.uint8).cpu().numpy()


def shortcut_rates(model: SegmentationModel, seeds: Sequence[int], size: int) -> dict[str, float]:
    """How much the answer hangs on the mark beside the cell, over all cells of these pictures.

    Returns:
        ``right``: cells named rightly with marks as in training; ``removed_flips``: infected cells found that
        become healthy when the marks are left out; ``moved_flips``: healthy cells found that become infected
        when the marks are beside them instead.
    """
    kinds: tuple[Markers, ...] = ("infected", "none", "healthy")
    votes = {kind: [_votes(model, seed, size, kind) for seed in seeds] for kind in kinds}
    truth, normal = (np.concatenate([v[i] for v in votes["infected"]]) for i in (0, 1))
    removed, moved = (np.concatenate([v[1] for v in votes[kind]]) for kind in ("none", "healthy"))
    sick, well = (normal == truth) & (truth == INFECTED), (normal == truth) & (truth == HEALTHY)
    return {
        "cells": len(truth),
        "right": _share(normal == truth),
        "removed_flips": _share(removed[sick] == HEALTHY),
        "moved_flips": _share(moved[well] == INFECTED),
    }


def _share(hits: npt.NDArray[Any]) -> float:
    return round(float(hits.mean()), 4) if len(hits) else 0.0


def _votes(model: SegmentationModel, seed: int, size: int, markers: Markers) -> tuple[npt.NDArray[Any], ...]:
    """True class and majority of the predicted cell classes, per cell."""
    image, classes, instances, _ = shortcut_image(seed, size, markers=markers)
    predicted = predict(model, image[..., None])
    cells = [instances == number for number in range(1, int(instances.max()) + 1)]
    sick = [(predicted[cell] == INFECTED).sum() > (predicted[cell] == HEALTHY).sum() for cell in cells]
    return np.array([classes[cell][0] for cell in cells]), np.where(sick, INFECTED, HEALTHY)


def report(result: dict[str, Any]) -> str:
    """The scores as lines of text."""
    lines = [f"{'image':<40} {'Dice':>7} {'IoU':>7}"]
    lines += [f"{name:<40} {s['dice']:>7.4f} {s['iou']:>7.4f}" for name, s in result["images"].items()]
    for measure in ("mean", "median"):
        lines.append(f"{measure:<40} {result['dice'][measure]:>7.4f} {result['iou'][measure]:>7.4f}")
    lines += [f"{name:<40} {s['dice']:>7.4f} {s['iou']:>7.4f}" for name, s in result.get("classes", {}).items()]
    lines.append("worst: " + ", ".join(result["worst"]))
    lines += [f"{name}: {value}" for name, value in result.get("shortcut", {}).items()]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; returns the exit status."""
    if len(arguments) not in (1, 2):
        sys.stderr.write("Usage: python -m seglens.training.evaluate MODEL_DIR [DATA]\n")
        return 2
    try:
        result = evaluate(*(Path(a) for a in arguments))
    except SegLensError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(report(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
