"""Networks that were trained on transposed images, made to take ours."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from seglens.models.loaders.request import FOREIGN_ERRORS
from seglens.models.segmentation import quiet

# what a layer keeps per space axis
PER_AXIS = ("kernel_size", "stride", "padding", "dilation", "output_padding", "scale_factor", "output_size")
SIDES = {2: (32, 64), 3: (32, 48, 64)}
CLOSE = 1e-3


class Transposed(nn.Module):
    """A network behind two transpositions; its layers stay as they were, and would show transposed maps."""

    def __init__(self, network: nn.Module) -> None:
        """Keep the network."""
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """``(N, C, *space)`` to whatever the network answers, with its space axes reversed."""
        return _reversed(self.network(reverse(x)))


def reverse(x: Tensor) -> Tensor:
    """The same with its space axes in reverse order."""
    return x.permute(0, 1, *range(x.ndim - 1, 1, -1))


def turned(network: nn.Module) -> nn.Module | None:
    """The network with all its kernels transposed: exactly what it was, for images with reversed axes.

    Returns:
        ``None`` where that is not so (attention with positions, orders of axes written into the code).
    """
    other = copy.deepcopy(network)
    _turn(other)
    ndim = next((tensor.ndim - 2 for tensor in network.state_dict().values() if tensor.ndim in (4, 5)), None)
    if ndim is None:
        return None
    return other if any(_same(network, other, ndim, side) for side in SIDES[ndim]) else None


@torch.no_grad()
def _turn(network: nn.Module) -> None:
    for module in network.modules():
        for tensor in module.parameters(recurse=False):
            if tensor.ndim in (4, 5):
                tensor.copy_(reverse(tensor).clone()) if tensor.shape[2:] == tensor.shape[2:][::-1] else _swap(tensor)
        for name in PER_AXIS:
            value = getattr(module, name, None)
            if isinstance(value, tuple):
                setattr(module, name, value[::-1])
        if isinstance(padding := getattr(module, "_reversed_padding_repeated_twice", None), list):
            pairs = [padding[i : i + 2] for i in range(0, len(padding), 2)][::-1]
            module._reversed_padding_repeated_twice = [n for pair in pairs for n in pair]  # type: ignore[assignment]


def _swap(tensor: nn.Parameter) -> None:
    tensor.data = reverse(tensor.data).contiguous()


def _same(network: nn.Module, other: nn.Module, ndim: int, side: int) -> bool:
    first = next(tensor for tensor in network.state_dict().values() if tensor.ndim == ndim + 2)
    # sizes differ from each other, so that a swap shows
    space = tuple(side * n for n in (1, 2, 1)[:ndim])
    x = torch.randn((1, int(first.shape[1]), *space), generator=torch.Generator().manual_seed(0))
    try:
        with quiet(network), quiet(other), torch.no_grad():
            there, here = _tensor(network(x)), _tensor(other(reverse(x).contiguous()))
    except FOREIGN_ERRORS:
        return False
    if there is None or here is None or there.shape != reverse(here).shape:
        return False
    return bool((there - reverse(here)).abs().max() <= CLOSE * (1 + there.abs().max()))


def _tensor(out: Any) -> Tensor | None:
    if isinstance(out, tuple | list) and out:
        out = out[0]
    return out if isinstance(out, Tensor) else None


def _reversed(out: Any) -> Any:
    if isinstance(out, Tensor):
        return reverse(out) if out.ndim in (4, 5) else out
    if isinstance(out, dict):
        return {key: _reversed(value) for key, value in out.items()}
    return type(out)(_reversed(value) for value in out) if isinstance(out, tuple | list) else out
