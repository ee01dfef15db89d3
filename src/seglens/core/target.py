"""What is explained, kept apart from how: class, region, value, reduction (cards A/K1 and B/B0).

A target is plain data. The engine freezes it on the clean image (:mod:`seglens.engine.target`): from then on
the region does not move, whatever is done to the image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import NoSuchRegion

Value = Literal["logit", "probability", "log-probability", "margin", "dice"]
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Predicted:
    """Every pixel that the model gives to the class, on the clean image.

    Args:
        live: choose the pixels again after every change of the image. Then a score can rise because pixels were
            lost; it is here to compare with work that does so, and the record says it.
    """

    live: bool = False


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted mask in image coordinates, shape ``(*space)``: positive counts for, negative against.

    Args:
        mask: boolean or integer array; only the sign matters.
        source: path of the file it came from, for the record.
    """

    mask: NDArray[Any]
    source: str = ""


@dataclass(frozen=True)
class Point:
    """One pixel, in pixels of the image along its space axes."""

    at: tuple[int, ...]


@dataclass(frozen=True)
class Object:
    """One connected component of a predicted class: by number in the object map, or under a pixel."""

    number: int | None = None
    at: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Box:
    """A box ``start`` (inclusive) to ``stop`` (exclusive), in pixels; only its predicted pixels if asked."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    predicted_only: bool = True


@dataclass(frozen=True)
class Border:
    """The rim of another region: +1 on its inner rim, -1 on its outer rim, ``width`` pixels each."""

    of: Predicted | Painted | Object | Box = field(default_factory=Predicted)
    width: int = 2


Region = Predicted | Painted | Point | Object | Box | Border


@dataclass(frozen=True)
class Target:
    """Class × region × value × reduction.

    Args:
        of_class: name or index; ``None`` takes the class that the model predicts in the region.
        region: which pixels.
        value: ``logit`` · ``probability`` · ``log-probability`` · ``margin`` (over the best other class) ·
            ``dice`` (soft Dice with the frozen region).
        reduction: ``mean`` over the pixels that count, or ``sum``.
    """

    of_class: str | int | None = None
    region: Region = field(default_factory=Predicted)
    value: Value = "logit"
    reduction: Reduction = "mean"

    def describe(self) -> dict[str, Any]:
        """Plain data for the record; a mask is told by its file and fingerprint."""
        return {
            "class": self.of_class,
            "region": describe_region(self.region),
            "value": self.value,
            "reduction": self.reduction,
        }


def describe_region(region: Region) -> dict[str, Any]:
    """Plain data for one region."""
    match region:
        case Painted(mask, source):
            sha = hashlib.sha256(np.packbits(np.asarray(mask) > 0).tobytes()).hexdigest()[:16]
            return {"kind": "painted", "source": source, "shape": list(mask.shape), "sha256": sha}
        case Point(at):
            return {"kind": "point", "at": list(at)}
        case Object(number, at):
            return {"kind": "object", "number": number, "at": None if at is None else list(at)}
        case Box(start, stop, predicted_only):
            return {"kind": "box", "start": list(start), "stop": list(stop), "predicted_only": predicted_only}
        case Border(of, width):
            return {"kind": "border", "of": describe_region(of), "width": width}
        case _:
            live = isinstance(region, Predicted) and region.live
            return {"kind": "predicted", "live": live}


def read_region(data: dict[str, Any], mask: NDArray[Any] | None = None) -> Region:
    """The region that :func:`describe_region` told; a painted one needs its mask back.

    Raises:
        NoSuchRegion: a painted region without its mask.
    """
    kind = data["kind"]
    if kind == "painted":
        if mask is None:
            raise NoSuchRegion(
                "The record speaks of a painted region, and its mask is not here.",
                fix=f"Give the mask file {data.get('source') or 'that was painted'} again.",
            )
        return Painted(mask, data.get("source", ""))
    if kind == "point":
        return Point(tuple(data["at"]))
    if kind == "object":
        return Object(data["number"], None if data["at"] is None else tuple(data["at"]))
    if kind == "box":
        return Box(tuple(data["start"]), tuple(data["stop"]), data["predicted_only"])
    if kind == "border":
        inner = read_region(data["of"], mask)
        return Border(inner, data["width"])  # type: ignore[arg-type]
    return Predicted(data.get("live", False))
