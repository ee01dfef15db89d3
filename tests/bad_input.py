"""Bad input, as a table: how to make it, and the words that the two sentences must hold.

The same table runs through the API, the command line and the viewer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (24, 32)

NET = '''
import torch
from torch import nn


class Bright(nn.Module):
    """Says cell where a 3x3 mean is above one half."""

    def __init__(self, dims):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.features = conv(1, 2, 3, padding=1)
        self.head = conv(2, 2, 1)
        with torch.no_grad():
            for part in (self.features, self.head):
                part.weight.zero_()
                part.bias.zero_()
            self.features.weight[0] = 1 / 3**dims
            self.features.weight[1] = 0.1
            self.head.weight[1, 0] = 8
            self.head.bias[1] = -4

    def forward(self, x):
        return self.head(self.features(x))


def build():
    return Bright(2)


def deep():
    return Bright(3)
'''


def net(folder: Path, *, axes: str = "YX") -> str:
    """A model of one's own: ``net.py:build`` (``deep`` for volumes) with its description; needs trust."""
    name = {"YX": "net", "ZYX": "deep"}[axes]
    (folder / f"{name}.py").write_text(NET)
    about = {"name": "tiny", "axes": axes, "channels": ["grey"], "classes": ["background", "cell"]}
    (folder / f"{name}.json").write_text(json.dumps(about | {"normalisation": {"kind": "dtype"}}))
    return f"{folder / name}.py:{'build' if axes == 'YX' else 'deep'}"


def good(folder: Path) -> str:
    """An image with two bright squares on dark."""
    return _npy(folder, squares())


def squares() -> np.ndarray:
    """Two bright squares on a dark, slightly grainy ground."""
    image = np.random.default_rng(0).integers(20, 50, SIZE).astype(np.uint8)
    image[4:12, 5:13] = 220
    image[14:20, 18:28] = 240
    return image


@dataclass(frozen=True)
class Made:
    """One case, made in a folder: what to hand to API, command line or viewer.

    Args:
        image, model: sources.
        method, params: method and its parameters by name.
        target: options of the target by name: ``class``, ``region`` (a file), ``point`` (y, x).
        trust: whether the person allows the model to run code.
    """

    image: str
    model: str
    method: str
    params: dict[str, Any]
    target: dict[str, Any]
    trust: bool


@dataclass(frozen=True)
class Bad:
    """One row.

    Args:
        name: test id.
        what, fix: words of the two sentences.
        image, model: make the file in a folder and return its source.
        method, params: as in :class:`Made`.
        target: values, or functions that make a file in a folder and return its path.
        trust: as in :class:`Made`.
        part: which part is bad: ``image``, ``model``, ``network``, ``target`` or ``params``.
    """

    name: str
    part: str
    what: str
    fix: str
    image: Callable[[Path], str] = good
    model: Callable[[Path], str] = net
    method: str = "occlusion"
    params: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    trust: bool = True

    def make(self, folder: Path) -> Made:
        """Make the files of this case."""
        target = {key: value(folder) if callable(value) else value for key, value in self.target.items()}
        return Made(self.image(folder), self.model(folder), self.method, dict(self.params), target, self.trust)


def _npy(folder: Path, array: Any, name: str = "image") -> str:
    path = folder / f"{name}.npy"
    np.save(path, array)
    return str(path)


def _missing(folder: Path) -> str:
    return str(folder / "nowhere.tif")


def _empty(folder: Path) -> str:
    return _npy(folder, np.zeros((0, 32), np.uint8))


def _constant(folder: Path) -> str:
    return _npy(folder, np.full(SIZE, 7, np.uint8))


def _nan(folder: Path) -> str:
    image = squares().astype(np.float32) / 255
    image[3, 4] = np.nan
    return _npy(folder, image)


def _complex(folder: Path) -> str:
    return _npy(folder, squares().astype(np.complex64))


def _one_pixel(folder: Path) -> str:
    return _npy(folder, np.ones((1, 1), np.uint8))


def _truncated_image(folder: Path) -> str:
    from PIL import Image as Pillow

    path = folder / "cut.png"
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    return str(path)


def _colours(folder: Path) -> str:
    return _npy(folder, np.dstack([squares()] * 3))


def _stack(folder: Path) -> str:
    return _npy(folder, np.stack([squares()] * 5))


def _other_mask(folder: Path) -> str:
    return _npy(folder, np.ones((10, 10), np.uint8), "mask")


def _empty_mask(folder: Path) -> str:
    return _npy(folder, np.zeros(SIZE, np.uint8), "mask")


def _no_model(folder: Path) -> str:
    path = folder / "model.pt"
    path.write_text("These are not weights.")
    return str(path)


def _cut_zip(folder: Path) -> str:
    import zipfile

    path = folder / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", "type: model\n")
        archive.writestr("weights.pt", np.random.default_rng(0).bytes(5000))
    path.write_bytes(path.read_bytes()[:2500])
    return str(path)


def _failing(statement: str) -> Callable[[Path], str]:
    """A network that runs on squares, as when it is loaded, and fails on all other images."""

    def make(folder: Path) -> str:
        source = net(folder)
        where = "        return self.head(self.features(x))"
        failing = NET.replace(where, f"        if x.shape[-1] != x.shape[-2]:\n            {statement}\n{where}")
        (folder / "net.py").write_text(failing)
        return source

    return make


def _pickled(folder: Path) -> str:
    import torch
    from torch import nn

    path = folder / "pickled.pt"
    torch.save(nn.Conv2d(1, 2, 3, padding=1), path)
    return str(path)


CASES: tuple[Bad, ...] = (
    Bad("missing file", "image", "There is no file", "Check the path", image=_missing),
    Bad("empty image", "image", "is empty", "holds pixels", image=_empty),
    Bad("constant image", "image", "is constant", "Check the channel", image=_constant),
    Bad("NaN", "image", "not a number", "nan_to_num", image=_nan),
    Bad("wrong dtype", "image", "complex64", "Convert the image", image=_complex),
    Bad("1-pixel image", "image", "1×1 pixels", "at least", image=_one_pixel),
    Bad("truncated image", "image", "cannot be read", "complete", image=_truncated_image),
    Bad("wrong channels", "image", "expects 1 channel (", "--channels", image=_colours),
    Bad("a stack for a 2-D model", "image", "axes ZYX", "--select Z=2", image=_stack),
    Bad("mask of another shape", "target", "10×10", "same size", target={"region": _other_mask}),
    Bad("empty region", "target", "is empty", "at least one pixel", target={"region": _empty_mask}),
    Bad("point outside", "target", "outside the image", "from 0", target={"point": (100, 3)}),
    Bad("unknown class", "target", "no class called 'cel'", "Did you mean cell", target={"class": "cel"}),
    Bad("no such object", "target", "no object 9", "from 1 to 2", target={"object": 9}),
    Bad(
        "unknown layer", "params", "no layer called 'feature'", "Did you mean features", method="seg-grad-cam",
        params={"layer": "feature"},
    ),
    Bad("parameter out of range", "params", "window=0 is not allowed", "from 1 to", params={"window": 0}),
    Bad("parameter of a wrong kind", "params", "window='many'", "a whole number", params={"window": "many"}),
    Bad("unknown choice", "params", "fill='whit'", "Did you mean white", params={"fill": "whit"}),
    Bad("missing model", "model", "no model called", "shipped models", model=lambda _: "no-such-model"),
    Bad("model file that is not one", "model", "model.pt", "Give a model file", model=_no_model),
    Bad("truncated zip", "model", "package.zip", "again", model=_cut_zip),
    Bad("pickled code without trust", "model", "not trusted", "--trust", model=_pickled, trust=False),
    Bad(
        "network that needs a package", "network", "tiny failed on this image with ModuleNotFoundError (No module",
        "Install no_such_package", model=_failing("import no_such_package"),
    ),
    Bad(
        "network that looks for a key", "network", "tiny failed on this image with KeyError ('skip')", "mend its code",
        model=_failing("{}['skip']"),
    ),
    Bad(
        "network that divides by zero", "network", "with ZeroDivisionError (division by zero)", "mend its code",
        model=_failing("1 / 0"),
    ),
    Bad(
        "network without an attribute", "network", "with AttributeError ('Bright' object has no", "mend its code",
        model=_failing("self.neck(x)"),
    ),
    Bad(
        "network that joins what does not fit", "network", "tiny failed on this image with RuntimeError (",
        "mend its code", model=_failing("torch.cat([x, x[..., :3]])"),
    ),
    Bad(
        "network that says nothing", "network", "failed on this image with AssertionError.", "mend its code",
        model=_failing("assert False"),
    ),
    Bad("factory without trust", "model", "not trusted", "--trust", trust=False),
)  # fmt: skip
