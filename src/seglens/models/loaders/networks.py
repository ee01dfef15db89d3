"""Networks to put weights into: our own, or a class of MONAI; nothing else can be named."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from seglens.core.errors import BadParameter, ModelMismatch, SegLensError, UnknownName
from seglens.models.loaders.request import FOREIGN_ERRORS, first_line
from seglens.models.nets import build_network

MONAI = "monai:"


def make_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A fresh network by name; the state of the random generator is left as it was.

    Args:
        name: ``unet``, or ``monai:`` and a class of ``monai.networks.nets``.
        arguments: its keyword arguments.

    Raises:
        UnknownName: no such network.
        BadParameter: it does not take these arguments.
    """
    with torch.random.fork_rng(devices=[]):
        if name.startswith(MONAI):
            return _monai(name.removeprefix(MONAI), arguments)
        return build_network(name, arguments)


def monai_class(name: str) -> type[nn.Module]:
    """A network class that MONAI itself defines.

    Raises:
        UnknownName: ``monai.networks.nets`` has no network of that name.
    """
    from monai.networks import nets

    known = {key: value for key, value in vars(nets).items() if _is_network(value)}
    if name not in known:
        listing = "See monai.networks.nets for all of them; for another network give a file.py:build."
        raise UnknownName.among("MONAI network", name, known, listing=listing)
    found: type[nn.Module] = known[name]
    return found


def _is_network(thing: Any) -> bool:
    return (
        isinstance(thing, type) and issubclass(thing, nn.Module) and thing.__module__.startswith("monai.networks.nets")
    )


def _monai(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    found = monai_class(name)
    # the weights come from the file: never fetch others from the internet
    known = inspect.signature(found).parameters
    quiet = {"pretrained": False} if "pretrained" in known else {}
    kept = {key: value for key, value in arguments.items() if not key.startswith("pretrained")}
    try:
        return found(**kept, **quiet)
    except SegLensError:
        raise
    except FOREIGN_ERRORS as error:
        raise BadParameter(
            f"MONAI's {name} cannot be built from {dict(arguments)}: {first_line(error)}.",
            fix=f"Give the arguments that {name} takes: {', '.join(list(known)[:6])} and others.",
        ) from error


def fill(network: nn.Module, state: Mapping[str, Any], where: str) -> None:
    """Put weights into a network; every key has to fit. A common prefix such as ``module.`` is taken off.

    Args:
        network: what to fill.
        state: names to tensors.
        where: the file, for people.

    Raises:
        ModelMismatch: keys are missing or left over, or a tensor has another shape.
    """
    own = network.state_dict()
    state = _without_prefix(state, own)
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    kind = type(network).__name__
    if missing or extra:
        raise ModelMismatch(
            f"The weights in {where} are not those of this {kind}: {_some('missing', missing, extra)}.",
            fix="Name the network of training and its arguments, with --network or in a model.json beside them.",
        )
    for key, tensor in own.items():
        if key in state and state[key].shape != tensor.shape:
            raise ModelMismatch(
                f"The weights in {where} do not fit this {kind}: {key} is {tuple(state[key].shape)} in the file "
                f"and {tuple(tensor.shape)} in the network.",
                fix="Correct the network's arguments (channels, classes, features) to those of training.",
            )
    network.load_state_dict(dict(state), strict=False)


def _without_prefix(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    state = dict(state)
    for _ in range(3):
        head = next(iter(state), "").partition(".")[0] + "."
        if any(key in own for key in state) or not all(key.startswith(head) for key in state):
            break
        state = {key.removeprefix(head): value for key, value in state.items()}
    return state


def _some(first: str, missing: list[str], extra: list[str]) -> str:
    parts = [(len(missing), f"{first} {', '.join(missing[:3])}"), (len(extra), f"unexpected {', '.join(extra[:3])}")]
    return "; ".join(f"{text}{f' and {n - 3} more' if n > 3 else ''}" for n, text in parts if n)
