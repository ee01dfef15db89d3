"""Where prototypes come from: found in a network, read from a model folder and written to one, with their crops."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import ndimage
from torch import nn

from seglens.core.errors import MissingNeed, ModelMismatch
from seglens.models.loaders.beside import find, folder_of
from seglens.models.nets.proto_unet import PrototypeHead
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec

RECORDS, CROPS = "prototypes.json", "prototypes.safetensors"
LEAST, MOST = 40, 96  # sides of a crop, in pixels
LIT = 95  # a crop shows what is among the 5 % of the image that are most alike

Crop = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Prototype:
    """A prototype and the place in a training image that it is.

    Args:
        number: from 1; it stays when others are dropped.
        label: name of the class that it is of.
        image: fingerprint of its image; empty where nothing is known of its origin.
        name, source: shown name and path of the image; the path may be empty.
        position: its pixel along the model's axes.
        box: half-open ranges per axis, what the crop shows.
        crop: (h, w) or (h, w, 3); (0, 0) where nothing is known. The network has seen more than the crop shows.
    """

    number: int
    label: str
    image: str
    name: str
    source: str
    position: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    crop: Crop


def find_head(module: nn.Module) -> PrototypeHead | None:
    """The prototype layer of a network, if it has one."""
    return next((m for m in module.modules() if isinstance(m, PrototypeHead)), None)


def check_prototypes(model: SegmentationModel) -> PrototypeHead:
    """The prototype layer of a model.

    Raises:
        MissingNeed: it has none, or is looked at tile by tile.
    """
    head = find_head(model.module)
    if head is None or model.spec.multilabel:
        raise MissingNeed(
            f"{model.spec.name} has no prototype layer.",
            fix="Choose a prototype network, for example proto-histology, or train one with a recipe proto-….",
        )
    return head


def prototypes_of(model: SegmentationModel) -> tuple[Prototype, ...]:
    """The prototypes that count, by number.

    Raises:
        MissingNeed: the model is no prototype network.
        ModelMismatch: its folder has a ``prototypes.json`` that cannot be read or is of another network.
    """
    head = check_prototypes(model)
    told = known_records(model)
    active = head.active.tolist()
    return tuple(
        _prototype(number, model.spec, int(owner), told.get(number, {}))
        for number, owner in enumerate(head.owner.tolist(), start=1)
        if active[number - 1]
    )


def known_records(model: SegmentationModel) -> dict[int, dict[str, Any]]:
    """What is known of each prototype by number: kept by the network, else read from its folder, once."""
    head = check_prototypes(model)
    if head.provenance is None:
        head.provenance = _read(model, len(head.owner))
    return {int(record["number"]): record for record in head.provenance}


def _prototype(number: int, spec: ModelSpec, owner: int, record: Mapping[str, Any]) -> Prototype:
    return Prototype(
        number=number,
        label=spec.classes[owner].name,
        image=str(record.get("image", "")),
        name=str(record.get("name", "")),
        source=str(record.get("source", "")),
        position=tuple(int(n) for n in record.get("position", ())),
        box=tuple((int(a), int(b)) for a, b in record.get("box", ())),
        crop=record.get("crop", np.zeros((0, 0), np.uint8)),
    )


def _read(model: SegmentationModel, count: int) -> list[dict[str, Any]]:
    with folder_of(model.source) as folder:
        file = None if folder is None else find(folder, RECORDS)
        return [] if file is None else read_records(file, count)


def read_records(file: Path, count: int) -> list[dict[str, Any]]:
    """What :func:`write_prototypes` wrote, for a network of so many prototypes.

    Raises:
        ModelMismatch: unreadable, or of a network with other prototypes.
    """
    fix = "Train or save the model again; its folder has to stay as it was written."
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        crops = load_file(file.parent / CROPS)
        records = [{**record, "crop": crops[str(record["number"])]} for record in told["prototypes"]]
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise ModelMismatch(f"{file.name} or {CROPS} cannot be read: {error!r}.", fix=fix) from error
    if told.get("count") != count:
        raise ModelMismatch(
            f"{file.name} tells of {told.get('count')} prototypes, and the network has {count}.", fix=fix
        )
    return records


def write_prototypes(folder: Path, head: PrototypeHead, spec: ModelSpec) -> None:
    """Write ``prototypes.json`` and the crops into a model folder; nothing where nothing is known."""
    if not head.provenance:
        return
    owner, active = head.owner.tolist(), head.active.tolist()
    plain = []
    for record in head.provenance:
        at = int(record["number"]) - 1
        more = {"label": spec.classes[owner[at]].name, "kept": active[at]}
        plain.append({**{key: value for key, value in record.items() if key != "crop"}, **more})
    text = json.dumps({"count": len(owner), "prototypes": plain}, indent=1, ensure_ascii=False)
    (folder / RECORDS).write_text(text + "\n", encoding="utf-8")
    crops = {str(record["number"]): np.ascontiguousarray(record["crop"], np.uint8) for record in head.provenance}
    save_file(crops, folder / CROPS)


def lit_box(similarity: NDArray[Any], position: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The box of what is most alike around a position: connected, above the 95th percentile, of a sensible size.

    Args:
        similarity: (*space) of one prototype.
        position: a pixel.

    Returns:
        Half-open ranges per axis; between 40 and 96 pixels a side, where the image is that large.
    """
    lit = similarity >= min(np.percentile(similarity, LIT), similarity[tuple(position)])
    numbered, _ = ndimage.label(lit)
    found = ndimage.find_objects((numbered == numbered[tuple(position)]).astype(np.uint8))[0]
    box = []
    for part, at, size in zip(found, position, similarity.shape, strict=True):
        side = min(size, int(np.clip(part.stop - part.start, LEAST, MOST)))
        middle = (part.start + part.stop) // 2 if part.stop - part.start <= MOST else at
        start = int(np.clip(middle - side // 2, max(0, at - side + 1), min(at, size - side)))
        box.append((start, start + side))
    return tuple(box)


def cut(pixels: NDArray[Any], box: Sequence[tuple[int, int]], position: Sequence[int]) -> Crop:
    """A picture of a box: of (C, *space) pixels, bytes (h, w) or (h, w, 3); of a volume the plane of the position."""
    if pixels.dtype != np.uint8:
        low, high = np.percentile(pixels, (0.5, 99.5))
        pixels = (np.clip((pixels - low) / (high - low or 1.0), 0, 1) * 255).astype(np.uint8)
    plane = np.moveaxis(pixels, 0, -1)
    for at in position[:-2]:
        plane = plane[at]
    (top, bottom), (left, right) = box[-2:]
    part = plane[top:bottom, left:right]
    return np.ascontiguousarray(part[..., :3] if part.shape[-1] >= 3 else part[..., 0])
