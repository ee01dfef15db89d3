"""Answers on disk: images with axes and pixel size, tables, figures as data, and the record. Nothing is pickled.

``save_explanation`` and ``load_explanation`` are each other's inverse; ``layers.json`` says which file is what.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.explanation import Explanation, Figure, Layer, Record, Table
from seglens.core.files import open_image
from seglens.core.image import SPACE, Image
from seglens.core.writing import write_image

RECORD = "record.json"
_LAYERS = "layers.json"


class Segmented(Protocol):
    """What :func:`save_segmentation` needs to know of a segmentation."""

    @property
    def axes(self) -> str:
        """Axes of labels and entropy."""

    @property
    def labels(self) -> Any:
        """Class per pixel."""

    @property
    def entropy(self) -> Any:
        """Predictive entropy."""

    @property
    def probabilities(self) -> Any:
        """Probability of each class, class first; or ``None``."""

    def objects(self) -> Any:
        """Connected components of the predicted classes."""


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill; if anything fails, what was written is removed again.

    Raises:
        BadParameter: the folder exists and is not empty, or cannot be made.
    """
    path = Path(folder).expanduser()
    check_new(path)
    existed = path.is_dir()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadParameter(
            f"The folder {path} cannot be made: {error.strerror}.", fix="Choose a folder that you may write to."
        ) from error
    try:
        yield path
    except BaseException:  # also Ctrl-C: nobody wants half an answer
        shutil.rmtree(path, ignore_errors=True)
        if existed:
            path.mkdir(exist_ok=True)
        raise


def check_new(folder: str | Path) -> None:
    """Refuse to mix new results with what is in a folder.

    Raises:
        BadParameter: the folder exists and is not empty; the fix names one that is free.
    """
    path = Path(folder).expanduser()
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    free = next(p for n in range(2, 10_000) if not (p := path.with_name(f"{path.name}-{n}")).exists())
    what = "is not empty" if path.is_dir() else "is a file"
    raise BadParameter(f"The output folder {path} {what}.", fix=f"Choose another one, for example --out {free}.")


def save_explanation(explanation: Explanation, folder: str | Path, image: Image) -> Path:
    """Write an explanation into a new folder.

    Each layer becomes an OME-TIFF (an OME-Zarr when very big), points and vectors and tables become CSV, figures
    and the record JSON, the text ``text.txt``.

    Args:
        explanation: what a method answered.
        folder: must not exist or be empty.
        image: the image that was explained; axes and pixel size come from it.

    Returns:
        The folder.

    Raises:
        BadParameter: the folder is not empty.
    """
    with new_folder(folder) as path:
        names = _file_names([part.name for part in explanation.layers])
        told = [_save_layer(item, path, stem, image) for item, stem in zip(explanation.layers, names, strict=True)]
        _write_json(path / _LAYERS, told)
        for table, stem in zip(explanation.tables, _file_names([t.name for t in explanation.tables]), strict=True):
            save_table(path / f"table-{stem}.csv", table)
        for figure, stem in zip(explanation.figures, _file_names([f.name for f in explanation.figures]), strict=True):
            _write_json(path / f"figure-{stem}.json", asdict(figure))
        if explanation.text:
            (path / "text.txt").write_text(explanation.text + "\n", encoding="utf-8")
        if explanation.record is not None:
            save_record(explanation.record, path)
    return path


def save_record(record: Record, folder: Path) -> Path:
    """Write ``record.json``, with which the run can be done again."""
    return _write_json(folder / RECORD, record.to_dict())


def load_explanation(folder: str | Path) -> Explanation:
    """Read what :func:`save_explanation` wrote.

    Raises:
        ImageMismatch: the folder holds no explanation.
    """
    path = Path(folder).expanduser()
    if not (path / _LAYERS).is_file():
        raise ImageMismatch(
            f"{path} holds no explanation (no {_LAYERS}).", fix="Give a folder that `seglens explain` wrote."
        )
    layers = tuple(_load_layer(told, path) for told in json.loads((path / _LAYERS).read_text(encoding="utf-8")))
    tables = tuple(_read_csv(p) for p in sorted(path.glob("table-*.csv")))
    figures = tuple(Figure(**json.loads(p.read_text(encoding="utf-8"))) for p in sorted(path.glob("figure-*.json")))
    text, record = path / "text.txt", path / RECORD
    return Explanation(
        layers,
        tables,
        figures,
        text.read_text(encoding="utf-8").rstrip("\n") if text.is_file() else "",
        Record.from_dict(json.loads(record.read_text(encoding="utf-8"))) if record.is_file() else None,
    )


def save_segmentation(segmentation: Segmented, folder: str | Path, image: Image) -> Path:
    """Write labels, objects, entropy and (if there) probabilities as images into a new folder.

    Objects are numbered only where the labels are in memory: numbering looks at the whole image.

    Raises:
        BadParameter: the folder is not empty.
    """
    objects = segmentation.objects() if isinstance(segmentation.labels, np.ndarray) else None
    parts = {
        "labels": (segmentation.labels, segmentation.axes),
        "objects": (objects, segmentation.axes),
        "entropy": (segmentation.entropy, segmentation.axes),
        "probabilities": (segmentation.probabilities, "C" + segmentation.axes),
    }
    with new_folder(folder) as path:
        for part, (data, axes) in parts.items():
            if data is not None:
                title = f"{image.name} {part}"
                write_image(path / f"{part}.tif", data, axes, image.pixel_size, image.unit, name=title)
    return path


def _save_layer(layer: Layer, folder: Path, stem: str, image: Image) -> dict[str, Any]:
    told = {"name": layer.name, "kind": layer.kind, "unit": layer.unit, "rgb": layer.rgb, "offset": list(layer.offset)}
    if layer.resolution:
        told["resolution"] = list(layer.resolution)
    if layer.kind in ("points", "vectors"):
        file = folder / f"{stem}.csv"
        flat = np.asarray(layer.data).reshape(len(layer.data), -1)
        header = ",".join(f"c{i}" for i in range(flat.shape[1]))
        np.savetxt(file, flat, delimiter=",", header=header, comments="", fmt="%.9g")
        return {**told, "file": file.name, "shape": list(layer.data.shape)}
    axes = _layer_axes(layer, image)
    name = f"{image.name} {layer.name}"
    file = write_image(folder / f"{stem}.ome.tif", layer.data, axes, image.pixel_size, image.unit, name=name)
    return {**told, "file": file.name, "axes": axes, "dtype": str(layer.data.dtype), "limits": list(layer.limits())}


def _load_layer(told: dict[str, Any], folder: Path) -> Layer:
    file = folder / told["file"]
    if told["kind"] in ("points", "vectors"):
        data: NDArray[Any] = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2).reshape(told["shape"])
    else:
        data = open_image(file).read(told["axes"]).astype(told["dtype"])
    own = tuple(told.get("resolution", ()))
    return Layer(told["name"], told["kind"], data, told["unit"], told["rgb"], tuple(told["offset"]), own)


def _layer_axes(layer: Layer, image: Image) -> str:
    kept = "".join(a for a in SPACE if a in image.kept)
    coloured = layer.kind == "image" and (layer.rgb or layer.data.ndim > len(kept))
    ndim = layer.data.ndim - coloured
    space = kept if len(kept) == ndim else SPACE[-ndim:]
    return space + ("C" if coloured else "")


def _file_names(names: list[str]) -> list[str]:
    stems: list[str] = []
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "layer"
        stems.append(stem if stem not in stems else f"{stem}-{len(stems) + 1}")
    return stems


def _write_json(path: Path, data: Any) -> Path:
    text = json.dumps(data, indent=2, ensure_ascii=False, default=_plain)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as JSON has them; anything else as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def save_table(path: Path, table: Table) -> None:
    """Write a table as CSV: its name, the names of its columns, its rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([table.name])
        writer.writerow(table.columns)
        writer.writerows(row.values() for row in table.rows())


def _read_csv(path: Path) -> Table:
    with path.open(newline="", encoding="utf-8") as file:
        (name,), header, *rows = csv.reader(file)
    columns = zip(*rows, strict=True) if rows else [[] for _ in header]
    return Table(name, {key: [_number(v) for v in column] for key, column in zip(header, columns, strict=True)})


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
