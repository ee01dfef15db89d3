"""Records of segmentations, and runs as a command line or as Python that really run."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.app.napari.settings import user_folder
from seglens.app.napari.viewer_session import Made
from seglens.core.explanation import Record
from seglens.core.image import Image
from seglens.core.rerun import as_cli, as_python
from seglens.core.target import Border, Painted
from seglens.core.writing import write_image

SEGMENT = "segment"
KEPT_KINDS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".nii", ".nii.gz", ".npy", ".zarr")


def segment_record(views: list[Image], model: Any, tile: int | None, halo: int | None) -> dict[str, Any]:
    """What is needed to run a segmentation again; one view stands for itself, several for a list."""
    return {
        "kind": SEGMENT,
        "model": {"name": model.spec.name, "source": model.source, "sha256": model.spec.sha256},
        "images": [image_record(view) for view in views],
        "tile": tile,
        "halo": halo,
    }


def image_record(image: Image) -> dict[str, Any]:
    """How a view was cut from its image."""
    parts = dict(zip(image.axes, image.index, strict=True))
    full = dict(zip(image.axes, image.data.shape, strict=True))
    return {
        "name": image.name,
        "source": image.source,
        "axes": image.axes,
        "select": {a: p for a, p in parts.items() if not isinstance(p, slice)},
        "crop": {
            a: f"{p.start}:{p.stop}"
            for a, p in parts.items()
            if isinstance(p, slice) and (p.start, p.stop) != (0, full[a])
        },
        "channels": list(image.channels) if image.channels else None,
    }


def as_text(made: Made, kind: str) -> str:
    """The run as ``cli`` or ``python``; what was never a file is written into the user's folder first."""
    record = json.loads(json.dumps(made.record, default=str))
    if record.get("kind") == SEGMENT:
        if isinstance(made.image, Image):
            record["images"] = [_reachable(record["images"][0], made.image)]
        return _segment_cli(record) if kind == "cli" else _segment_python(record)
    if isinstance(made.image, Image):
        record["image"] = _reachable(record["image"], made.image)
    _write_mask(made, record)
    if made.annotation is not None:
        record["asked"]["annotation"] = _saved("labels", np.asarray(made.annotation))
    full = Record.from_dict(record)
    return as_cli(full) if kind == "cli" else as_python(full)


def _saved(name: str, numbers: NDArray[Any]) -> str:
    key = hashlib.sha256(np.ascontiguousarray(numbers).tobytes() + str(numbers.shape).encode()).hexdigest()[:12]
    path = user_folder("copied") / f"{name}-{key}.npy"
    if not path.exists():
        np.save(path, numbers)
    return str(path)


def _reachable(told: dict[str, Any], image: Image) -> dict[str, Any]:
    source = str(told.get("source", ""))
    if source.startswith("sample:") or (source.endswith(KEPT_KINDS) and Path(source).exists()):
        return told
    axes = "".join(a for a in "TCZYX" if a in image.kept or (a == "C" and image.channels is not None))
    pixels = image.read(axes)
    name = hashlib.sha256(np.ascontiguousarray(pixels).tobytes() + axes.encode()).hexdigest()[:12]
    path = user_folder("copied") / f"image-{name}.tif"
    if not path.exists():
        path = write_image(path, pixels, axes, dict(image.pixel_size), image.unit, name=image.name)
    return {**told, "source": str(path), "axes": axes, "select": {}, "crop": {}, "channels": None}


def _write_mask(made: Made, record: dict[str, Any]) -> None:
    told, region = record["target"]["region"], made.region
    if isinstance(region, Border):
        told, region = told["of"], region.of
    if not isinstance(region, Painted) or told.get("source"):
        return
    told["source"] = _saved("target", np.asarray(region.mask).astype(np.int8))


def _segment_cli(record: dict[str, Any]) -> str:
    lines = []
    for number, image in enumerate(record["images"]):
        line = ["seglens", "segment", image["source"] or "IMAGE", "--model", record["model"]["source"]]
        line += ["--axes", image["axes"]]
        for flag in ("select", "crop"):
            if image[flag]:
                line += [f"--{flag}", ",".join(f"{a}={p}" for a, p in image[flag].items())]
        if image["channels"]:
            line += ["--channels", ",".join(map(str, image["channels"]))]
        for flag in ("tile", "halo"):
            if record[flag] is not None:
                line += [f"--{flag}", str(record[flag])]
        lines.append(shlex.join([*line, "--out", "segmentation" if number == 0 else f"segmentation-{number + 1}"]))
    return "\n".join(lines)


def _segment_python(record: dict[str, Any]) -> str:
    lines = ["import seglens", "", f"model = seglens.load_model({record['model']['source']!r})"]
    options = "".join(f", {k}={record[k]}" for k in ("tile", "halo") if record[k] is not None)
    for image in record["images"]:
        lines.append(f"image = seglens.open_image({image['source'] or 'IMAGE'!r}, axes={image['axes']!r})")
        if image["select"]:
            lines.append(f"image = image.select(**{image['select']!r})")
        if image["crop"]:
            parts = ", ".join(f"{a}=slice({p.replace(':', ', ')})" for a, p in image["crop"].items())
            lines.append(f"image = image.crop({parts})")
        if image["channels"]:
            lines.append(f"image = image.with_channels({tuple(image['channels'])!r})")
        lines.append(f"result = seglens.segment(image, model{options})")
    return "\n".join([*lines, "print(result.labels.shape)", ""])
