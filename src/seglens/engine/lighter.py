"""Operations that keep little for the way back through a network whose weights are fixed.

What torch keeps of a convolution is its input, of a ReLU its answer: four bytes a value, which only their own gradients
of weights would need. Here a convolution keeps nothing, a rectifier one byte a value, a pooling four bytes an answer.
The gradients are the same to the last bit; the peak of a forward and a backward pass comes down to about that of the
forward pass alone.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.engine.fast import blank, give_back

HANDS_ON = True  # an error that shows here is that of the network, which was the one to ask
CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}
TRANSPOSED = {torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d}
# Where a convolution's backward pass is known to ask its input for the shape alone, and how many values are worth it:
# calling a small operation takes a GPU longer than computing it.
DEVICES = {"cpu": 0, "cuda": 2**22}
NAMES = ("stride", "padding", "dilation", "groups")
OF_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")

aten = torch.ops.aten


class Shape(NamedTuple):
    """What is left of a tensor whose values nobody needs."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, t: Tensor) -> Shape:
        """Its size and layout."""
        return cls(tuple(t.size()), t.stride(), t.dtype, t.device)

    def empty(self) -> Tensor:
        """A tensor like it, whatever its values: memory that nobody touches."""
        return blank(*self)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, spare: float, *how: Any) -> Tensor:
        give_back(spare)
        ctx.of, ctx.weight, ctx.spare, ctx.how = Shape.of(x), weight, spare, how
        ctx.biases = None if bias is None else [bias.numel()]
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, came: Tensor) -> Any:
        give_back(ctx.spare)
        only = [True, False, False]
        given, *_ = aten.convolution_backward(came, ctx.of.empty(), ctx.weight, ctx.biases, *ctx.how, only)
        return (given, *(None,) * (3 + len(ctx.how)))


class _Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        out = x.relu_() if inplace else x.relu()
        ctx.on = out.bool().view(torch.uint8)
        return out

    @staticmethod
    def backward(ctx: Any, came: Tensor) -> Any:
        return came * ctx.on, None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *how: Any) -> Tensor:
        dims = len(how[0])
        out, where = getattr(aten, f"max_pool{dims}d_with_indices")(x, *how)
        ctx.of, ctx.how = Shape.of(x), how
        ctx.where = where.to(torch.int32)  # an input of more pixels than these can number is refused long before
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, came: Tensor) -> Any:
        back = getattr(aten, f"max_pool{len(ctx.how[0])}d_with_indices_backward")
        return (back(came, ctx.of.empty(), *ctx.how, ctx.where.long()), *(None,) * len(ctx.how))


def convolved(
    func: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rest: tuple[Any, ...], more: Any, spare: float = inf
) -> Tensor:
    """A convolution, transposed or not, of torch's function and its further arguments as they were given.

    Of freed memory at most ``spare`` bytes are kept for what comes next.
    """
    if not _wanted(x) or weight.requires_grad or x.ndim != weight.ndim:
        return func(x, weight, bias, *rest, **more)  # type: ignore[no-any-return]
    names = NAMES if func in CONVOLUTIONS else OF_TRANSPOSED
    given = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    given |= dict(zip(names, rest, strict=False)) | more
    if isinstance(given["padding"], str):
        return func(x, weight, bias, *rest, **more)
    stride, padding, dilation, outer = (
        _each(given[name], x.ndim - 2) for name in ("stride", "padding", "dilation", "output_padding")
    )
    how = (stride, padding, dilation, func in TRANSPOSED, outer, given["groups"])
    return _Convolution.apply(x, weight, bias, spare, *how)  # type: ignore[no-any-return, no-untyped-call]


def rectified(func: Any, x: Tensor, inplace: bool = False) -> Tensor:
    """A ReLU, whatever its name."""
    inplace = inplace or func in IN_PLACE
    return _Rectifier.apply(x, inplace)  # type: ignore[no-any-return, no-untyped-call]


def pooled(
    func: Any, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """Max pooling over planes or volumes."""
    dims = POOLS[func]
    if x.ndim != dims + 2:  # one picture without a batch
        return func(x, kernel_size, stride, padding, dilation, ceil_mode)
    kernel = _each(kernel_size, dims)
    step = _each(stride, dims) if stride else kernel
    return _MaxPool.apply(x, kernel, step, _each(padding, dims), _each(dilation, dims), ceil_mode)  # type: ignore[no-untyped-call]


IN_PLACE = {torch.relu_, Tensor.relu_}
POOLS = {F.max_pool2d: 2, torch.max_pool2d: 2, F.max_pool3d: 3, torch.max_pool3d: 3}
LIGHTER: dict[Any, Any] = dict.fromkeys((F.relu, torch.relu, Tensor.relu, *IN_PLACE), rectified)
LIGHTER |= dict.fromkeys(POOLS, pooled)


def pads_nothing(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation only copies, as a U-Net does that pads its skip connections to sizes that fit already."""
    return func is F.pad and bool(args) and not any(args[1] if len(args) > 1 else kwargs["pad"])


def lighter(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Any other operation: one that keeps less where there is one, else as it is."""
    found = LIGHTER.get(func)
    if found is None or not args or not _wanted(args[0]) or kwargs.get("return_indices"):
        return func(*args, **kwargs)
    return found(func, *args, **kwargs)


def _wanted(x: Any) -> bool:
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and x.dtype is torch.float32
        and x.numel() >= DEVICES.get(x.device.type, inf)
    )


def _each(value: Any, dims: int) -> list[int]:
    """A number for each axis."""
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * dims if len(values) == 1 else values
