"""What a feature bank says about each of its embeddings, and about itself; plain data, no torch."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter

Kind = Literal["object", "patch", "pixel"]
MaskKind = Literal["instances", "classes"]
Metric = Literal["cosine", "euclidean"]
Precision = Literal["float16", "float32"]


@dataclass(frozen=True)
class Entry:
    """Where one embedding comes from.

    Args:
        image: fingerprint of the image (:meth:`seglens.core.image.Image.fingerprint`).
        name: the image's name, shown to people.
        source: path or ``sample:NAME``; empty if it never was a file.
        select: positions along further axes (T, Z), in pixels of the image; empty if there are none.
        kind: what the embedding is the mean of.
        position: a pixel inside, along the model's axes, in pixels of the image.
        box: half open, per axis of the model, in pixels of the image.
        pixels: how many pixels it is the mean of.
        predicted: name of the class that the model draws there.
        truth: name of the class that the mask has there; ``None`` where no mask is known.
        iou: intersection over union with the truth; ``None`` where no mask is known.
        group: slide, patient, file: what must not leak.
    """

    image: str
    name: str
    source: str
    select: Mapping[str, int]
    kind: Kind
    position: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    pixels: int
    predicted: str
    truth: str | None = None
    iou: float | None = None
    group: str = ""


@dataclass(frozen=True)
class ImageRow:
    """An image of a bank: its fingerprint, and whether all of it is there."""

    fingerprint: str
    name: str
    source: str
    group: str
    count: int
    finished: bool


@dataclass(frozen=True)
class Failure:
    """An image that could not be embedded, and why."""

    name: str
    source: str
    what: str
    fix: str


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest embeddings of some queries, nearest first; equal distances stand in the order of the rows.

    Args:
        rows: (q, k) int64; -1 where there are fewer.
        distances: (q, k) float32; infinite where there are fewer.
        excluded: groups that were left out on request, of those that the bank has.
        left_out: how many embeddings that were.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    excluded: tuple[str, ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class BankInfo:
    """What all embeddings of a bank have in common; plain data, kept as JSON.

    Args:
        layer: dotted name of the layer that was read.
        kind: what one embedding is the mean of.
        axes: the model's axes.
        dims: channels of the layer, D.
        classes: names of the model's classes.
        model: the model's name.
        model_source: zoo name or path, with which it can be loaded again.
        model_sha256: fingerprint of its weights.
        pixel_size: of the model's training, per axis; ``None`` if unknown.
        unit: unit of the pixel size.
        stride: how many pixels of the image one pixel of the layer's map stands for.
        side: side of a patch in pixels; 0 for other kinds.
        tile: side of the tiles in which images were looked at; 0 for whole images where they are small enough.
        per_image: most embeddings of one image (of each time point or slice of a stack); ``None`` for all.
        smallest: regions of fewer pixels were left out.
        only: classes whose objects or pixels were taken; empty for all.
        truth: what the numbers in its masks are, ``instances`` or ``classes``; empty without masks.
        group: the rule that made groups of images: ``file``, ``folder`` or a regular expression.
        seed: of the choice where not all were taken.
        precision: type in which embeddings are kept.
        created: date and time in UTC.
        versions: of the programs that made it.
    """

    layer: str
    kind: Kind
    axes: str
    dims: int
    classes: tuple[str, ...]
    model: str = ""
    model_source: str = ""
    model_sha256: str = ""
    pixel_size: tuple[float, ...] | None = None
    unit: str = "pixel"
    stride: int = 1
    side: int = 0
    tile: int = 0
    per_image: int | None = None
    smallest: int = 1
    only: tuple[str, ...] = ()
    truth: str = ""
    group: str = "file"
    seed: int = 0
    precision: Precision = "float16"
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BankInfo:
        """Read what :meth:`to_json` wrote; what a later version has added is left out.

        Raises:
            BadParameter: it is not a description of a bank.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            known: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in cls.__dataclass_fields__
            }
            return cls(**known)
        except (ValueError, TypeError, AttributeError) as error:
            raise BadParameter(
                f"The bank's description cannot be used: {error}.", fix="Build the bank again into a new folder."
            ) from error
