"""What is asked of a build, checked before the work starts: settings, images, and the folder of the bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from seglens import __version__
from seglens.core.errors import BadParameter
from seglens.core.files import SAMPLE, image_files
from seglens.core.image import Image
from seglens.engine.features.bank import FeatureBank, is_bank
from seglens.engine.features.entry import BankInfo, Kind, Precision
from seglens.engine.features.regions import feature_layer
from seglens.models.layers import find_layer, layers
from seglens.models.segmentation import SegmentationModel

Source = str | Path | Image
SIDE = {2: 32, 3: 16}
PIXELS = 500


def bank_info(
    model: SegmentationModel,
    layer: str | None,
    kind: Kind,
    *,
    only: Sequence[str | int],
    side: int | None,
    tile: int | None,
    **more: Any,
) -> BankInfo:
    """What a bank will be about; the arguments are those of :func:`~seglens.engine.features.build.build_bank`.

    Raises:
        UnknownName, MissingNeed: no such layer or class, or layers cannot be reached.
        BadParameter: settings that cannot be.
    """
    spec = model.spec
    found = {one.name: one for one in layers(model)}
    name = layer or feature_layer(model)
    find_layer(model, name)
    if name not in found:
        raise BadParameter(
            f"The layer {name} answers no map that has places.",
            fix=f"Choose another one, for example --layer {feature_layer(model)}.",
        )
    _check(kind, side, tile, more)
    per_image = PIXELS if kind == "pixel" and more["per_image"] is None else more["per_image"]
    window = max(side or SIDE[spec.ndim], 1 if side else found[name].stride) if kind == "patch" else 0
    return BankInfo(
        name, kind, spec.axes, found[name].channels, tuple(c.name for c in spec.classes), spec.name, model.source,
        model.fingerprint(), spec.pixel_size, spec.unit, found[name].stride, window, tile or 0,
        versions={"seglens": __version__, "torch": torch.__version__, "numpy": np.__version__},
        only=tuple(spec.classes[spec.class_index(c)].name for c in only), **{**more, "per_image": per_image},
    )  # fmt: skip


def _check(kind: str, side: int | None, tile: int | None, more: dict[str, Any]) -> None:
    if kind not in get_args(Kind):
        raise BadParameter(f"There is no kind {kind!r} of embedding.", fix=f"Use {', '.join(get_args(Kind))}.")
    if more["precision"] not in get_args(Precision):
        raise BadParameter(
            f"There is no precision {more['precision']!r}.", fix=f"Use {' or '.join(get_args(Precision))}."
        )
    numbers = {"side": side, "tile": tile, "per_image": more["per_image"], "smallest": more["smallest"]}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise BadParameter(f"{name}={value} was given.", fix="Use 1 or more, or leave it out.")
    if side is not None and kind != "patch":
        raise BadParameter(
            f"side={side} was given for embeddings of kind {kind}.", fix="Leave it out: it is of patches."
        )


def opened(out: Path, info: BankInfo) -> FeatureBank:
    """A new bank, or one that was begun with the same settings.

    Raises:
        BadParameter: the folder holds something else.
    """
    if not is_bank(out):
        return FeatureBank.create(out, info)
    bank = FeatureBank.open(out)
    names = [f.name for f in fields(BankInfo) if f.name not in ("created", "versions", "model", "model_source")]
    other = [name for name in names if getattr(bank.info, name) != getattr(info, name)]
    if other:
        told = ", ".join(f"{name} {getattr(bank.info, name)!r}, not {getattr(info, name)!r}" for name in other)
        bank.close()
        raise BadParameter(
            f"The bank in {out} was begun with other settings: {told}.",
            fix="Give the same settings to go on with it, or choose a new folder.",
        )
    return bank


def expanded(images: Source | Sequence[Source]) -> list[Source]:
    """Folders as the images in them; paths in full, so that they are found from anywhere."""
    from seglens.core.readers.zarrs import is_zarr

    out: list[Source] = []
    for one in [images] if isinstance(images, str | Path | Image) else images:
        if isinstance(one, Image) or str(one).startswith(SAMPLE):
            out.append(one)
            continue
        path = Path(one).expanduser().absolute()
        out += image_files(path) if path.is_dir() and not is_zarr(path) else [path]
    if not out:
        raise BadParameter("No images were given to build a bank of.", fix="Give files, folders or sample:NAME.")
    return out


def where(source: Source) -> str:
    """Where an image comes from; its name if it never was a file."""
    return (source.source or source.name) if isinstance(source, Image) else str(source)
