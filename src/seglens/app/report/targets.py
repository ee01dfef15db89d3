"""What a record says was explained: as a region of pixels and in a few words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import SegLensError
from seglens.core.explanation import Explanation
from seglens.core.files import read_mask
from seglens.core.target import read_region
from seglens.models.spec import ModelSpec

_VALUES = {"log-probability": "log probability"}


def region_of(explanation: Explanation, segmentation: Any, spec: ModelSpec) -> NDArray[np.bool_] | None:
    """The pixels that count (*space), found again on the prediction; ``None`` where that is not possible."""
    record = explanation.record
    if record is None or segmentation.axes != spec.axes:
        return None
    # torch enters only with a picture that needs it
    from seglens.engine.target import region_weights

    labels = np.asarray(segmentation.labels)
    wanted = record.target["region"]
    painted = wanted.get("of", wanted)
    try:
        mask = read_mask(painted["source"], labels.shape) if painted.get("source") else None
        index = spec.class_index(record.target["resolved"]["class"])
        own = None
        if spec.overlapping and index and painted["kind"] in ("predicted", "box"):
            if segmentation.probabilities is None:
                return None  # labels alone do not tell of classes that lie over each other
            own = np.asarray(segmentation.probabilities[index]) > 0.5
        found = region_weights(read_region(wanted, mask), labels, index, spec, own) != 0
    except SegLensError:
        # a mask that was painted in the viewer, or a file that is gone: the maps are shown without an outline
        return None
    region: NDArray[np.bool_] = found
    return region


def told(explanation: Explanation) -> str:
    """Class, region and score of a record, in a few words."""
    record = explanation.record
    if record is None:
        return ""
    resolved = record.target.get("resolved", {})
    name = resolved.get("class", record.target["class"])
    value = _VALUES.get(record.target["value"], record.target["value"])
    score = f"{record.target['reduction']} {value} {resolved['score']:.3g}" if "score" in resolved else ""
    count = resolved.get("pixels", 0)
    pixels = f"{count:,} pixel{'s' if count != 1 else ''}".replace(",", " ") if "pixels" in resolved else ""
    return " · ".join(part for part in (_words(record.target["region"], str(name)), pixels, score) if part)


def _words(region: dict[str, Any], name: str) -> str:
    match region["kind"]:
        case "object":
            which = f" {region['number']}" if region["number"] is not None else f" at {_comma(region['at'])}"
            return f"one {name}, object{which}"
        case "point":
            return f"{name} at pixel {_comma(region['at'])}"
        case "painted":
            return f"{name} in the painted region"
        case "box":
            return f"{name} in a box"
        case "border":
            return "the border of " + _words(region["of"], name)
        case _:
            return f"every pixel of {name}"


def _comma(numbers: Any) -> str:
    return ", ".join(map(str, numbers))
