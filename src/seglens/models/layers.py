"""The layers of a network that can be looked at: names, channels, stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.errors import MissingNeed, UnknownName
from seglens.core.plural import plural
from seglens.models.blame import blaming
from seglens.models.segmentation import SegmentationModel, quiet

SIDE = {2: 64, 3: 32}


@dataclass(frozen=True)
class LayerInfo:
    """A layer that answers a map.

    Args:
        name: dotted name of the module.
        kind: its class, such as ``Conv2d``.
        channels: channels of its map.
        stride: how many input pixels one pixel of the map stands for, along the coarsest axis; at least 1.
        order: its place in the order in which layers finish, from 0.
        final: whether its map is the network's answer itself.
    """

    name: str
    kind: str
    channels: int
    stride: int
    order: int
    final: bool = False


def layers(model: SegmentationModel) -> tuple[LayerInfo, ...]:
    """Every named layer that answers a map, in the order in which they finish.

    A layer that is called more than once stands where it finished last; one that sums up the whole image in a single
    pixel is left out. Found with one small image; nothing is left behind in the model.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript.
    """
    modules = _named(model)
    shape = _probe_shape(model)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim == len(shape) and out.shape[2:].numel() > 1:
                seen.pop(name, None)
                seen[name] = out

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        # not inference_mode: a network may keep tensors that it makes, and later use needs their gradient
        with blaming(model), quiet(model.module), torch.no_grad():
            answer = model.module(torch.zeros(shape, device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    space = shape[2:]
    return tuple(
        LayerInfo(name, type(modules[name]).__name__, int(out.shape[1]), _stride(space, out), order, out is answer)
        for order, (name, out) in enumerate(seen.items())
    )


def default_layer(model: SegmentationModel) -> str:
    """The layer to look at when nobody says: the coarsest, of those the one with most channels, of those the last.

    In a network that keeps the size throughout it is the last layer with most channels before the head.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript, or none of its layers answers a map.
    """
    every = layers(model)
    found = [layer for layer in every if not layer.final] or every
    if not found:
        raise MissingNeed(
            f"{model.spec.name} has no layer inside that answers a map.",
            fix="Choose a method that needs no layer.",
        )
    return max(found, key=lambda layer: (layer.stride, layer.channels, layer.order)).name


def find_layer(model: SegmentationModel, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript.
        UnknownName: there is none.
    """
    modules = _named(model)
    if name not in modules:
        shown = ", ".join(list(modules)[:8])
        listing = f"{model.spec.name} has {plural(len(modules), 'layer')}: {shown}{', …' if len(modules) > 8 else ''}."
        raise UnknownName.among("layer", name, modules, listing=listing)
    return modules[name]


def layer_name(model: SegmentationModel, module: nn.Module) -> str:
    """What a module is called in the network."""
    return next((name for name, one in model.module.named_modules() if one is module), type(module).__name__)


def _named(model: SegmentationModel) -> dict[str, nn.Module]:
    if not model.layered:
        raise MissingNeed(
            f"The layers of {model.spec.name} cannot be reached: it is a finished graph (TorchScript or .pt2).",
            fix="Load its weights with the network they belong to (--network), or choose a method that needs no layer.",
        )
    return {name: module for name, module in model.module.named_modules() if name}


def _probe_shape(model: SegmentationModel) -> tuple[int, ...]:
    spec = model.spec
    least = max(SIDE[spec.ndim], spec.min_size, 2 * spec.divisor)
    side = -(-least // spec.divisor) * spec.divisor
    return (spec.batch or 1, len(spec.channels), *(spec.size or (side,) * spec.ndim))


def _stride(space: tuple[int, ...], out: Tensor) -> int:
    return max(1, *(round(n / max(1, m)) for n, m in zip(space, out.shape[2:], strict=True)))
