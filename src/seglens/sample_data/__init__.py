"""Small images to try things on: drawn ones that ship with SegLens, and three real ones of scikit-image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import ImageMismatch, UnknownName
from seglens.core.files import SAMPLE, open_image
from seglens.core.image import Image

HERE = Path(__file__).parent
LayerKind = Literal["image", "labels"]
LayerData = tuple[NDArray[Any], dict[str, Any], LayerKind]
Extra = tuple[tuple[str, str, LayerKind], ...]


@dataclass(frozen=True)
class SampleInfo:
    """A sample as it stands in a menu.

    Args:
        title: name for people.
        description: what can be seen, and what it is good for.
        model: the shipped model that suits it; empty if there is none.
        extra: further files and what they show, as (ending of the name, title, kind of layer).
        real: name of the scikit-image picture; empty for drawn ones.
    """

    title: str
    description: str
    model: str = ""
    extra: Extra = ()
    real: str = ""


_TRUTH: Extra = (("truth", "truth", "labels"),)

SAMPLES: dict[str, SampleInfo] = {
    "nuclei-2d": SampleInfo(
        "Nuclei, fluorescence (drawn)",
        "Bright nuclei on dark; some touch and one is out of focus, where models go wrong.",
        "nuclei-fluorescence",
        _TRUTH,
    ),
    "tissue-rgb": SampleInfo(
        "Stained tissue, RGB (drawn)",
        "Three glands in fibrous tissue with a few immune cells, in the colours of haematoxylin and eosin.",
        "nuclei-histology",
        _TRUTH,
    ),
    "nuclei-zstack": SampleInfo(
        "Nuclei, Z stack (drawn)",
        "Sixteen slices, each 2.5 times as thick as a pixel is wide.",
        "nuclei-fluorescence",
        _TRUTH,
    ),
    "time-lapse": SampleInfo(
        "Dividing nuclei, time-lapse (drawn)",
        "Twelve frames, ten minutes apart; one nucleus divides at frame 6. The truth numbers tracks.",
        "nuclei-fluorescence",
        (("truth", "tracks", "labels"),),
    ),
    "shortcut": SampleInfo(
        "The shortcut (drawn)",
        "The model finds infected cells by the bright ring beside them, not by the cell: explain the class "
        "infected and see it. In the moved picture the same cells have their rings elsewhere.",
        "shortcut-synthetic",
        (("truth", "truth", "labels"), ("marker", "rings (the shortcut)", "labels"), ("moved", "moved", "image")),
    ),
    "immunohistochemistry": SampleInfo(
        "Immunohistochemistry (real, scikit-image)",
        "Colon, haematoxylin and a brown antibody stain.",
        "nuclei-histology",
        real="immunohistochemistry",
    ),
    "retina": SampleInfo("Retina (real, scikit-image)", "A human retina with its vessels.", real="retina"),
    "cell": SampleInfo("Cell (real, scikit-image)", "One cell in an optical diffraction tomogram.", real="cell"),
}


def open_sample(name: str) -> Image:
    """The image of a sample, or one of its further files: ``shortcut-moved``.

    Raises:
        UnknownName: no such sample.
        ImageMismatch: a picture of scikit-image that its wheel does not hold.
    """
    parts = {f"{n}-{ending}": (n, f"-{ending}") for n, info in SAMPLES.items() for ending, _, _ in info.extra}
    if name in parts:
        return _drawn(*parts[name], name)
    info = _info(name)
    if info.real:
        data = _real(info.real)
        return Image(data, "YXC" if data.ndim == 3 else "YX", name=name, source=SAMPLE + name)
    return _drawn(name, "", name)


def sample_layers(name: str) -> list[LayerData]:
    """A sample as napari's menu wants it: the image, then what its tour needs.

    Raises:
        UnknownName: no such sample.
        ImageMismatch: a picture of scikit-image that its wheel does not hold.
    """
    image = open_sample(name)
    layers = [_layer(image, name, "image")]
    for ending, title, kind in _info(name).extra:
        layers.append(_layer(_drawn(name, f"-{ending}", title), f"{name} {title}", kind))
    # The picture to look at first is the one that is visible; everything else waits.
    for _, settings, kind in layers[1:]:
        settings["visible"] = kind == "labels" and settings["name"].endswith("tracks")
    return layers


def _info(name: str) -> SampleInfo:
    if name not in SAMPLES:
        raise UnknownName.among("sample", name, SAMPLES, listing=f"Samples: {', '.join(SAMPLES)}.")
    return SAMPLES[name]


def _drawn(name: str, ending: str, title: str) -> Image:
    image = open_image(HERE / f"{name}{ending}.tif")
    return Image(image.data, image.axes, image.pixel_size, image.unit, title, f"{SAMPLE}{name}{ending}")


def _real(name: str) -> NDArray[Any]:
    from skimage import data

    try:
        return np.asarray(getattr(data, name)())
    except (AttributeError, OSError, ValueError, ImportError) as error:
        raise ImageMismatch(
            f"scikit-image cannot give its picture {name!r}: {error}.",
            fix=f"Use a drawn sample such as sample:nuclei-2d, or run skimage.data.{name}() once with a network.",
        ) from error


def _layer(image: Image, name: str, kind: LayerKind) -> LayerData:
    settings: dict[str, Any] = {"name": name, "metadata": {"seglens_source": image.source}}
    settings["scale"] = tuple(image.scale(image.axes.removesuffix("C")))
    if kind == "image":
        settings["rgb"] = image.axes.endswith("C")
    if image.unit == "micrometer":
        # napari wants a unit for each axis; time is counted in frames
        settings["units"] = tuple("pixel" if a == "T" else "um" for a in image.axes.removesuffix("C"))
    return np.asarray(image.data), settings, kind
