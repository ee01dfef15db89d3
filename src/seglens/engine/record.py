"""The record of an explanation: what is needed to run it again, and what it cost."""

from __future__ import annotations

import datetime
import importlib
import platform
from typing import Any

import torch

from seglens import __version__
from seglens.core.explanation import Record
from seglens.core.image import Image
from seglens.core.method import Method
from seglens.core.target import Target
from seglens.engine.case import Case


def record(method: Method, case: Case, target: Target, seconds: float, **asked: Any) -> Record:
    """What is needed to run it again.

    Args:
        method: the recipe.
        case: what it answered.
        target: as it was asked for.
        seconds: that it took.
        asked: what else was said, by the name of its option; what is empty is left out. References are told by
            themselves.
    """
    image, spec, run = case.image, case.model.spec, case.run
    if run.precision != "full":
        asked = {"precision": run.precision} | asked
        if "precision" not in run.engine and "scores" not in run.engine:
            run.note(f"Nothing here runs in {run.precision}: {method.title} was computed in full precision.")
    asked["reference"] = [_image_record(one, spec.axes) for one in case.reference]
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
        asked={name.replace("_", "-"): value for name, value in asked.items() if value},
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
