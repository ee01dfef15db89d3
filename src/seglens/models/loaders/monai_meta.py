"""What a MONAI bundle says about its images and classes: metadata, preprocessing, postprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seglens.models.loaders.affine import Chain
from seglens.models.loaders.monai_config import Config
from seglens.models.spec import read_spec

AXES = {2: "YX", 3: "ZYX"}
# intensities, as far as they change the image in an affine way (clipping is left out, and the description says so)
CLIPPED = "The bundle clips intensities after scaling them; here they are scaled and not clipped."


def describe(metadata: Path, config: Config, name: str) -> dict[str, Any]:
    """Entries of the description that the bundle tells.

    Raises:
        ModelMismatch: the metadata cannot be read, or the preprocessing has no counterpart here.
    """
    told = read_spec(metadata) if metadata.is_file() else {}
    formats = told.get("network_data_format")
    formats = formats if isinstance(formats, Mapping) else {}
    image, answer = _first(formats.get("inputs")), _first(formats.get("outputs"))
    chain, clipped = _normalisation(config, name)
    about: dict[str, Any] = {
        "name": str(told.get("name") or name),
        "description": " ".join(filter(None, [str(told.get("description") or ""), CLIPPED if clipped else ""])),
        "licence": str(told.get("license") or told.get("copyright") or ""),
        "normalisation": vars(chain.result),
    }
    about |= _image(image, config)
    return about | _classes(answer, config)


def reads_transposed(config: Config) -> bool:
    """Whether the network was trained on images as MONAI's readers give them: x first, and ours are x last."""
    steps = [(step, arguments) for step, arguments in config.transforms("preprocessing") if step == "LoadImage"]
    return any(arguments.get("reader") not in ("WSIReader", "NumpyReader") for _, arguments in steps)


def _first(entries: Any) -> Mapping[str, Any]:
    found: Any = next(iter(entries.values()), {}) if isinstance(entries, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _names(entry: Mapping[str, Any]) -> tuple[str, ...]:
    told = entry.get("channel_def")
    names = tuple(str(value) for value in told.values()) if isinstance(told, Mapping) else ()
    return names if len(names) == entry.get("num_channels", len(names)) else ()


def _image(image: Mapping[str, Any], config: Config) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if names := _names(image):
        about["channels"] = names
    space = image.get("spatial_shape")
    if not isinstance(space, list) or len(space) not in AXES:
        return about
    about["axes"] = AXES[len(space)]
    if all(isinstance(n, int) for n in space):
        about["tile"] = tuple(space[::-1])
    spacing = next((a.get("pixdim") for step, a in config.transforms("preprocessing") if step == "Spacing"), None)
    if isinstance(spacing, list) and len(spacing) == len(space):
        about |= {"pixel_size": tuple(float(n) for n in spacing[::-1]), "unit": "millimeter"}
    return about


def _classes(answer: Mapping[str, Any], config: Config) -> dict[str, Any]:
    names = _names(answer)
    activations = [arguments for step, arguments in config.transforms("postprocessing") if step == "Activations"]
    sigmoid = any(arguments.get("sigmoid") for arguments in activations)
    about: dict[str, Any] = {"multilabel": sigmoid or len(names) == 1} if names or activations else {}
    if len(names) + about.get("multilabel", False) >= 2:
        about["classes"] = ("background", *names) if about["multilabel"] else names
    return about


def _normalisation(config: Config, name: str) -> tuple[Chain, bool]:
    chain, clipped = Chain(name), False
    for step, a in config.transforms("preprocessing"):
        if step == "ScaleIntensityRange":
            span = float(a["a_max"]) - float(a["a_min"])
            low, high = _target(a)
            gain = (high - low) / span
            chain.linear((gain,), (low - float(a["a_min"]) * gain,))
        elif step == "ScaleIntensityRangePercentiles":
            low, high = _target(a)
            chain.percentile(float(a["lower"]), float(a["upper"]), per_channel=bool(a.get("channel_wise")))
            chain.linear((high - low,), (low,))
        elif step == "ScaleIntensity" and a.get("factor") is None:
            low, high = float(a.get("minv", 0.0)), float(a.get("maxv", 1.0))
            chain.percentile(0.0, 100.0, per_channel=bool(a.get("channel_wise")))
            chain.linear((high - low,), (low,))
        elif step == "NormalizeIntensity":
            _normalise(chain, a)
        clipped |= bool(a.get("clip"))
    return chain, clipped


def _normalise(chain: Chain, arguments: Mapping[str, Any]) -> None:
    mean, std = arguments.get("subtrahend"), arguments.get("divisor")
    if isinstance(mean, int | float) and isinstance(std, int | float):
        chain.linear((1 / std,), (-mean / std,))
    else:
        chain.zscore(per_channel=bool(arguments.get("channel_wise")))


def _target(arguments: Mapping[str, Any]) -> tuple[float, float]:
    low, high = arguments.get("b_min"), arguments.get("b_max")
    if low is None or high is None:
        # without a target MONAI only clips
        return float(arguments.get("a_min", 0.0)), float(arguments.get("a_max", 1.0))
    return float(low), float(high)
