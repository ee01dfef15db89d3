"""bioimage.io packages: a zip or folder with ``rdf.yaml``, weights and maybe the source of the network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from seglens.core.errors import ModelMismatch
from seglens.models.archives import opened
from seglens.models.loaders.affine import Chain
from seglens.models.loaders.detect import CARDS
from seglens.models.loaders.factory import call_from_file
from seglens.models.loaders.infer import usual_channels
from seglens.models.loaders.networks import MONAI, fill, make_network
from seglens.models.loaders.request import Loaded, Request, first_line
from seglens.models.loaders.torchscript import read_script
from seglens.models.loaders.weights import read_weights
from seglens.models.trust import sha256_of

AXES = {"yx": "YX", "zyx": "ZYX"}
HARMLESS_AFTER = ("ensure_dtype",)
MONAI_NETS = "monai.networks.nets"
CONVERT = "Ask its authors for PyTorch weights, or convert them and load the result with a model.json."


def load(request: Request) -> Loaded:
    """Load a package; a network from a source file, and TorchScript, need trust.

    Raises:
        ModelMismatch: the description is invalid, a file is missing, or something in it has no counterpart here.
        UntrustedModel: its code is not trusted yet.
    """
    path = request.path
    with opened(path.parent if path.name in CARDS else path) as place:
        card = _card(place, path.name)
        model = _read(card, path.name)
        described = _describe(model, path.name)
        module, fingerprint, layered = _network(model, card.parent, request)
    return Loaded(module, described, fingerprint, layered=layered)


def _card(place: Path, name: str) -> Path:
    found = [p for card in CARDS for p in (place / card, *sorted(place.glob(f"*/{card}"))) if p.is_file()]
    if not found:
        raise ModelMismatch(f"{name} holds no rdf.yaml.", fix="Download the whole package from bioimage.io.")
    return found[0]


def _read(card: Path, name: str) -> Any:
    from bioimageio.spec import InvalidDescr, load_description

    try:
        with warnings.catch_warnings():
            # about descriptions of older versions; what matters is checked when the network has run
            warnings.simplefilter("ignore")
            # no look at files or links: what is needed is checked when it is opened, and nothing is downloaded
            model: Any = load_description(card, format_version="latest", perform_io_checks=False)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise _invalid(name, first_line(error)) from error
    if isinstance(model, InvalidDescr):
        raise _invalid(name, _first_complaint(model))
    if model.type != "model":
        raise ModelMismatch(f"{name} is a {model.type}, not a model.", fix="Choose a model on bioimage.io.")
    return model


def _invalid(name: str, why: str) -> ModelMismatch:
    return ModelMismatch(
        f"The description in {name} is not a valid bioimage.io model: {why}.",
        fix="Check it with `bioimageio validate-format`, or download the package again.",
    )


def _first_complaint(model: Any) -> str:
    errors = [error for detail in model.validation_summary.details for error in detail.errors]
    if not errors:
        return "no version of the format fits it"
    where = ".".join(str(part) for part in errors[0].loc)
    return f"{where}: {errors[0].msg}".strip(" .:")


def _network(model: Any, root: Path, request: Request) -> tuple[nn.Module, str, bool]:
    weights = model.weights
    if weights.pytorch_state_dict is not None:
        entry = weights.pytorch_state_dict
        path = _file(entry, root, request.name)
        network = _architecture(entry.architecture, root, request)
        stored = read_weights(path, request.trust)
        fill(network, stored if isinstance(stored, dict) else stored.state_dict(), path.name)
        return network, sha256_of(path), True
    if weights.torchscript is not None:
        path = _file(weights.torchscript, root, request.name)
        fingerprint = sha256_of(path)
        return read_script(path, request.trust, fingerprint, request.device), fingerprint, False
    kinds = [name for name, _ in weights if getattr(weights, name) is not None]
    raise ModelMismatch(f"{request.name} has weights for {', '.join(kinds)} and none for PyTorch.", fix=CONVERT)


def _architecture(told: Any, root: Path, request: Request) -> nn.Module:
    arguments = {**told.kwargs, **request.arguments}
    name = str(told.callable)
    if hasattr(told, "source"):
        return call_from_file(_file(told, root, request.name), name, arguments, request.trust)
    if told.import_from == MONAI_NETS or told.import_from.startswith(MONAI_NETS + "."):
        return make_network(MONAI + name, arguments)
    raise ModelMismatch(
        f"{request.name} takes its network from the Python package {told.import_from}, which is not called from here.",
        fix=f"Write a net.py with `from {told.import_from} import {name}` and give net.py:{name} with --weights.",
    )


def _file(entry: Any, root: Path, name: str) -> Path:
    source = str(entry.source)
    path = (root / source).resolve()
    if "://" in source or not path.is_relative_to(root.resolve()):
        raise ModelMismatch(
            f"{name} refers to {source}, which is not in the package.",
            fix="Download the complete package from bioimage.io; nothing is fetched from here.",
        )
    if not path.is_file():
        raise ModelMismatch(f"{name} should hold {source} and does not.", fix="Download the whole package again.")
    expected = entry.sha256
    if expected is not None and str(expected) != sha256_of(path):
        raise ModelMismatch(
            f"{source} in {name} is not the file that the package describes: its sha256 differs.",
            fix="Download the package again; do not use it if that does not help.",
        )
    return path


def _describe(model: Any, name: str) -> dict[str, Any]:
    if len(model.inputs) != 1:
        raise ModelMismatch(f"{name} takes {len(model.inputs)} inputs.", fix="Use a model that takes one image.")
    tensor, answer = model.inputs[0], model.outputs[0]
    axes = _axes(tensor, name)
    space = [axis for axis in tensor.axes if axis.type == "space"]
    channels = next(axis for axis in tensor.axes if axis.type == "channel")
    about: dict[str, Any] = {
        "name": str(model.name),
        "description": str(model.description or ""),
        "licence": str(model.license or ""),
        "axes": axes,
        "channels": _given_names(channels) or usual_channels(len(channels.channel_names)),
        "normalisation": _normalisation(tensor, name),
        "batch": tensor.axes[0].size,
    }
    if len(model.outputs) > 1:
        about["output"] = 0
    if any(axis.unit is not None for axis in space):
        about |= {"pixel_size": tuple(float(axis.scale) for axis in space), "unit": str(space[-1].unit)}
    return about | _sizes(space, name) | _answer(answer, name)


def _axes(tensor: Any, name: str) -> str:
    order = [str(axis.type) for axis in tensor.axes]
    space = "".join(str(axis.id) for axis in tensor.axes if axis.type == "space")
    if order[:2] != ["batch", "channel"] or set(order[2:]) != {"space"} or space not in AXES:
        raise ModelMismatch(
            f"{name} orders its axes as {', '.join(str(axis.id) for axis in tensor.axes)}.",
            fix="Use a model with axes batch, channel, y, x or batch, channel, z, y, x.",
        )
    return AXES[space]


def _sizes(space: Sequence[Any], name: str) -> dict[str, Any]:
    sizes = [axis.size for axis in space]
    if all(isinstance(size, int) for size in sizes):
        return {"size": tuple(sizes)}
    steps = [(s.min, s.step) for s in sizes if hasattr(s, "step")]
    fixed = [s for s in sizes if isinstance(s, int)]
    divisor = math.lcm(*(step for _, step in steps)) if steps else 1
    if not steps or fixed or any(smallest % divisor for smallest, _ in steps):
        # sizes such as 100 + 16 n have no common divisor: the smallest is one that works
        smallest = [s if isinstance(s, int) else getattr(s, "min", None) for s in sizes]
        if None in smallest:
            raise ModelMismatch(
                f"{name} ties the size of its image to another image.", fix="Use a model that takes one image."
            )
        return {"size": tuple(smallest)}
    return {"divisor": divisor, "min_size": max(smallest for smallest, _ in steps), "size": None}


def _normalisation(tensor: Any, name: str) -> Mapping[str, Any]:
    chain = Chain(name)
    for step in tensor.preprocessing:
        kind: str = step.id
        kwargs: Any = getattr(step, "kwargs", None)
        if kind == "ensure_dtype":
            if kwargs.dtype not in ("float32", "float64") and step is tensor.preprocessing[-1]:
                raise chain.refuse(f"ends in whole numbers ({kwargs.dtype})")
        elif kind == "scale_linear":
            chain.linear(_numbers(kwargs.gain), _numbers(kwargs.offset))
        elif kind == "fixed_zero_mean_unit_variance":
            mean, std = _numbers(kwargs.mean), _numbers(kwargs.std)
            chain.linear(tuple(1 / s for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True)))
        elif kind == "zero_mean_unit_variance":
            chain.zscore(per_channel=_per_channel(kwargs))
        elif kind == "scale_range" and kwargs.reference_tensor is None:
            chain.percentile(kwargs.min_percentile, kwargs.max_percentile, per_channel=_per_channel(kwargs))
        else:
            raise chain.refuse(f"has a step {kind!r}")
    return vars(chain.result)


def _numbers(value: float | Sequence[float]) -> tuple[float, ...]:
    return (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in value)


def _per_channel(kwargs: Any) -> bool:
    return kwargs.axes is not None and "channel" not in [str(axis) for axis in kwargs.axes]


def _answer(answer: Any, name: str) -> dict[str, Any]:
    """Classes, halo and activation, from the first output and what is done to it afterwards."""
    about: dict[str, Any] = {}
    channels = next((axis for axis in answer.axes if axis.type == "channel"), None)
    halo = tuple(int(getattr(axis, "halo", 0)) for axis in answer.axes if axis.type == "space")
    if any(halo):
        about["halo"] = halo
    after = [step for step in answer.postprocessing if step.id not in HARMLESS_AFTER]
    kinds = [step.id for step in after]
    if kinds[:1] == ["sigmoid"] or (channels is not None and len(channels.channel_names) == 1):
        about["multilabel"] = True
    elif kinds[:1] == ["softmax"]:
        about["multilabel"] = False
    unknown = [step.id for step in after if step.id not in ("sigmoid", "softmax") and not _usual_threshold(step)]
    if unknown:
        raise ModelMismatch(
            f"{name} changes its answer by {', '.join(unknown)}, so that it is no plain map of classes.",
            fix="Use a segmentation model whose output is logits or probabilities of classes.",
        )
    if channels is not None and (names := _given_names(channels)):
        sigmoids = about.get("multilabel", False)
        if len(names) + sigmoids >= 2:
            about["classes"] = ("background", *names) if sigmoids else names
    return about


def _given_names(channels: Any) -> tuple[str, ...]:
    """Names that somebody gave; empty where they only count (``channel0``, ``channel1``)."""
    names = tuple(str(name) for name in channels.channel_names)
    counted = all(name.startswith("channel") and name.removeprefix("channel").isdigit() for name in names)
    return () if counted else names


def _usual_threshold(step: Any) -> bool:
    return step.id == "binarize" and _numbers(step.kwargs.threshold) == (0.5,)
