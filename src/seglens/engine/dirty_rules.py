"""How far a change goes in one operation, and how a part of its answer is computed: a rule for each that is local."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.engine.dirty_trace import Step, Trace, Value

Span = tuple[int, int]

# Pixel by pixel, all channels or each.
POINTWISE = """
    abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or celu clamp clamp_max clamp_min clip cos div elu eq erf
    exp expm1 float_power floor ge gelu gt hardshrink hardsigmoid hardswish hardtanh isnan le leaky_relu lerp log
    log1p log_sigmoid logical_and logical_not logical_or logit lt masked_fill maximum minimum mish mul ne neg
    nan_to_num pow prelu _prelu_kernel reciprocal relu relu6 round rsqrt rsub selu sigmoid sign silu sin softplus
    softshrink special_expit special_erf sqrt square sub tanh threshold true_divide where
    batch_norm native_batch_norm _native_batch_norm_legit_no_training
""".split()  # noqa: SIM905
# The same as long as they work along the channels.
ALONG_CHANNELS = """
    amax amin argmax argmin chunk cumsum glu log_softmax _log_softmax logsumexp max mean min narrow slice softmax
    _softmax split split_with_sizes sum unsafe_split
""".split()  # noqa: SIM905
IN_PLACE = """
    celu clamp clamp_max clamp_min elu hardtanh hardswish leaky_relu mish relu relu6 selu sigmoid silu tanh
""".split()  # noqa: SIM905
PER_CHANNEL = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "prelu", "_prelu_kernel")
CONVOLUTIONS = ("conv2d", "conv3d", "convolution", "_convolution", "conv_transpose2d", "conv_transpose3d")
POOLS = ("max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d")
UPSAMPLE = {
    "upsample_nearest2d": "nearest", "upsample_nearest3d": "nearest", "_upsample_nearest_exact2d": "nearest-exact",
    "_upsample_nearest_exact3d": "nearest-exact", "upsample_bilinear2d": "bilinear",
    "upsample_trilinear3d": "trilinear",
}  # fmt: skip
PADS = {
    "pad": "", "constant_pad_nd": "constant", "reflection_pad2d": "reflect", "reflection_pad3d": "reflect",
    "replication_pad2d": "replicate", "replication_pad3d": "replicate",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One axis of an operation that looks through a window.

    Output ``o`` reads inputs ``stride * o - pad`` to ``stride * o - pad + extent``; upwards it is the other way round.

    Args:
        size: of the input.
        mirrored: pixels before and after the image that are made of those near its border.
    """

    stride: int = 1
    pad: int = 0
    extent: int = 0
    up: bool = False
    size: int = 0
    mirrored: Span = (0, 0)

    def read(self, start: int, stop: int) -> Span:
        """The inputs that outputs need; some may lie outside."""
        return self._few(start, stop) if self.up else self._many(start, stop)

    def seen(self, start: int, stop: int) -> Span:
        """The outputs that inputs have a part in; some may lie outside."""
        low, high = self._many(start, stop) if self.up else self._few(start, stop)
        before, after = self.mirrored
        return (
            0 if before and start <= before else low,
            self.size + before + after if after and stop >= self.size - after else high,
        )

    def wanted(self, start: int, stop: int) -> Span:
        """The inputs, all inside, that outputs need."""
        low, high = self.read(start, stop)
        before, after = self.mirrored
        if before and low < 0:
            high = max(high, before + 1)
        if after and high > self.size:
            low = min(low, self.size - 1 - after)
        return max(0, low), min(self.size, high)

    def _many(self, start: int, stop: int) -> Span:
        return start * self.stride - self.pad, (stop - 1) * self.stride - self.pad + self.extent + 1

    def _few(self, start: int, stop: int) -> Span:
        return -((self.extent - start - self.pad) // self.stride), (stop - 1 + self.pad) // self.stride + 1


@dataclass(frozen=True)
class Rule:
    """How a part of an operation's answer is computed.

    Args:
        run: patches of the inputs to a patch of the answer.
        lines: one per axis, for what looks through a window; empty: pixel by pixel.
        fill: what it finds outside the image, if ``edge`` is not ``replicate`` or ``reflect``.
        edge: how else the image goes on outside.
        made: upwards: where a patch's answer lies, if not as far as ``lines`` go.
        here: the same in place, for what nobody else looks at.
        work: multiplications per pixel, of the answer; upwards of the input.
        joins: a concatenation: nothing to compute.
    """

    run: Callable[..., Tensor] = lambda patch: patch
    lines: tuple[Line, ...] = ()
    fill: float = 0.0
    edge: str = ""
    made: tuple[Line, ...] = ()
    here: Callable[..., Tensor] | None = None
    work: float = 0.0
    joins: bool = False

    @property
    def up(self) -> bool:
        """Whether it makes more of less."""
        return any(line.up for line in self.lines)


def rules(trace: Trace) -> dict[int, Rule] | None:
    """A rule for every step, by the value that it makes; ``None`` if one of them has none."""
    found = {}
    dims = len(trace.shapes[0]) - 2
    for step in trace.steps:
        shapes = [trace.shapes[v] for v in step.inputs]
        if any(len(s) != dims + 2 or s[0] != 1 for s in (*shapes, trace.shapes[step.out])):
            return None
        rule = _rule(step, shapes, trace.shapes[step.out], dims)
        if rule is None:
            return None
        found[step.out] = rule
    return found


def _rule(step: Step, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...], dims: int) -> Rule | None:
    name, call = step.name, step.call
    if name in ("cat", "concat", "concatenate"):
        ours = all(isinstance(t, Value) for t in call["tensors"])
        return Rule(joins=True) if ours and call["dim"] in (1, -dims - 1) and _one_grid(shapes, out) else None
    if name in POINTWISE or name in ALONG_CHANNELS:
        rule = _pointwise(step, shapes, out, dims)
        if rule is not None or name not in ("slice", "narrow"):
            return rule
    if len(shapes) != 1:
        return None
    size = shapes[0][2:]
    if name in ("slice", "narrow"):
        return _cut(name, call, size, dims)
    if name in CONVOLUTIONS:
        return _convolution(name, call, size, dims)
    if name in POOLS:
        return _pool(step, size, dims)
    if name in UPSAMPLE:
        return _upsampling(name, call, size, out[2:])
    if name in PADS:
        return _padding(name, call, size, out[2:])
    return None


def _one_grid(shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> bool:
    return all(s[2:] == out[2:] for s in shapes)


def _pointwise(step: Step, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...], dims: int) -> Rule | None:
    call = step.call
    if not _one_grid(shapes, out) or call.get("training"):
        return None
    if step.name in ALONG_CHANNELS:
        axes = call.get("dim")
        axes = list(axes) if isinstance(axes, tuple | list) else [axes]
        if axes not in ([1], [-dims - 1]):
            return None
    elif step.name not in PER_CHANNEL and any(
        isinstance(a, Tensor) and prod(a.shape[max(0, a.ndim - dims) :]) > 1 for a in call.values()
    ):
        return None  # a constant that differs from pixel to pixel
    here = _in_place(step)
    return Rule(
        lambda *patches: step(dict(zip(step.inputs, patches, strict=True))),
        here=None if here is None else lambda patch: here({step.inputs[0]: patch}),
    )


def _in_place(step: Step) -> Step | None:
    packet = getattr(torch.ops.aten, f"{step.name}_", None) if step.name in IN_PLACE else None
    func = getattr(packet, step.func._overloadname, None)
    return None if func is None else replace(step, func=func)


def _convolution(name: str, call: dict[str, Any], size: tuple[int, ...], dims: int) -> Rule | None:
    weight = call["weight"]
    if not isinstance(weight, Tensor) or isinstance(call.get("bias"), Value):
        return None
    up = "transpose" in name or bool(call.get("transposed"))
    stride, dilation = (_each(call[k], dims) for k in ("stride", "dilation"))
    extent = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    pad = call["padding"]
    if isinstance(pad, str):
        pad = [e // 2 for e in extent] if pad == "same" else 0
    pad = _each(pad, dims)
    lines = tuple(Line(s, p, e, up, n) for s, p, e, n in zip(stride, pad, extent, size, strict=True))
    conv: Any = getattr(torch, f"conv_transpose{dims}d" if up else f"conv{dims}d")
    more = {"groups": call["groups"], "dilation": dilation, "stride": stride}
    bias = call.get("bias")
    # per pixel of the answer of a convolution, per pixel of the input of a transposed one
    work = float(weight.numel())
    if not up and all(line == Line(size=n) for line, n in zip(lines, size, strict=True)):
        lines = ()
    return Rule(lambda patch: conv(patch, weight, bias, **more), lines, work=work)


def _pool(step: Step, size: tuple[int, ...], dims: int) -> Rule | None:
    call, largest = step.call, step.name.startswith("max")
    kernel = _each(call["kernel_size"], dims)
    stride = _each(call["stride"] or kernel, dims)
    pad, dilation = _each(call["padding"], dims), _each(call.get("dilation", 1), dims)
    if step.item or (
        not largest and any((call["ceil_mode"], call["divisor_override"], not call["count_include_pad"] and any(pad)))
    ):
        return None
    lines = tuple(
        Line(s, p, d * (k - 1), size=n) for s, p, d, k, n in zip(stride, pad, dilation, kernel, size, strict=True)
    )
    if largest:
        pool: Any = F.max_pool2d if dims == 2 else F.max_pool3d
        return Rule(lambda patch: pool(patch, kernel, stride, 0, dilation), lines, -math.inf)
    mean: Any = F.avg_pool2d if dims == 2 else F.avg_pool3d
    return Rule(lambda patch: mean(patch, kernel, stride), lines)


def _upsampling(name: str, call: dict[str, Any], size: tuple[int, ...], out: tuple[int, ...]) -> Rule | None:
    if call.get("align_corners") or any(b % a for a, b in zip(size, out, strict=True)):
        return None
    mode, scales = UPSAMPLE[name], [b // a for a, b in zip(size, out, strict=True)]
    given = call.get("scale_factors") or scales
    if any(float(g) != s for g, s in zip(given, scales, strict=True)):
        return None
    made = tuple(Line(s, 0, s - 1, True, n) for s, n in zip(scales, size, strict=True))
    lines = made
    if not mode.startswith("nearest"):
        # each output lies between two inputs; at the border the last one counts for both
        lines = tuple(Line(s, s // 2, 2 * s - 1 - s % 2, True, n) for s, n in zip(scales, size, strict=True))
    factors = [float(s) for s in scales]
    return Rule(lambda patch: F.interpolate(patch, scale_factor=factors, mode=mode), lines, edge="replicate", made=made)


def _padding(name: str, call: dict[str, Any], size: tuple[int, ...], out: tuple[int, ...]) -> Rule | None:
    given = call.get("pad", call.get("padding"))
    mode = PADS[name] or call["mode"]
    if given is None or len(given) > 2 * len(size) or mode not in ("constant", "replicate", "reflect"):
        return None
    spare = [0] * (len(size) - len(given) // 2)
    before, after = [*given[::2], *spare][::-1], [*given[1::2], *spare][::-1]
    edge = "" if mode == "constant" else mode
    if edge and min(given) < 0:
        return None
    lines = tuple(
        Line(1, b, 0, size=n, mirrored=(b, a) if edge else (0, 0)) for b, a, n in zip(before, after, size, strict=True)
    )
    return Rule(lines=lines, fill=float(call.get("value") or 0.0), edge=edge)


def _cut(name: str, call: dict[str, Any], size: tuple[int, ...], dims: int) -> Rule | None:
    axis = call["dim"] % (dims + 2) - 2
    step, start = call.get("step", 1), call["start"] or 0
    if axis < 0 or not isinstance(start, int):
        return None
    start = min(start % size[axis] if start < 0 else start, size[axis])
    lines = [Line(size=n) for n in size]
    lines[axis] = Line(step, -start, 0, size=size[axis])
    return Rule(lambda patch: patch[(..., *(slice(None, None, line.stride) for line in lines))], tuple(lines))


def _each(given: Any, dims: int) -> list[int]:
    """One number per axis."""
    numbers = list(given) if isinstance(given, tuple | list) else [given]
    return [int(n) for n in (numbers * dims if len(numbers) == 1 else numbers)]
