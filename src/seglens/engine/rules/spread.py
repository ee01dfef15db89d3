"""Exact differences of operations that look at many values at once: normalisations, softmax, attention, variance.

Each function takes multipliers m of the answer and both runs' values, and gives multipliers of the input with
Σ m·Δinput = Σ m·Δanswer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seglens.engine.rules.steps import Slot, Step

SMALL = 1e-10  # differences below this count as none: the derivative takes their place (as in Captum)
Pair = tuple[Tensor, Tensor]
Axes = int | tuple[int, ...]


def slope(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor, derivative: Tensor) -> Tensor:
    """(y - y0) / (x - x0), and the derivative where x hardly differs."""
    dx = x - x0
    near = ~(dx.abs() >= SMALL)  # so that what is masked with infinities counts as near
    return torch.where(near, derivative, (y - y0) / torch.where(near, torch.ones_like(dx), dx))


def normalised(step: Step, m: Tensor, x: Pair, mean: Pair, inverse: Pair) -> Tensor:
    """y = γ·c·u + β, with c the input without its mean and u = 1/deviation.

    Δ(c·u) = u·Δc + c₀·Δu: what changes around the mean counts in the image's own deviation. (Even shares would meet
    the deviation of a constant baseline, which is next to nothing.)
    """
    shape, axes, gamma = _measured(step, tuple(m.shape))
    g = m if gamma is None else m * gamma
    g = g.reshape(shape)
    keep = [1 if a in axes else n for a, n in enumerate(shape)]
    (mu, mu0), (u, u0) = ([t.reshape(keep) for t in pair] for pair in (mean, inverse))
    c, c0 = x[0].reshape(shape) - mu, x[1].reshape(shape) - mu0
    count = math.prod(shape[a] for a in axes)
    # u as a function of the variance v = 1/u² - ε: Δu/Δv = -u²u₀²/(u + u₀); Δv = mean of (c + c₀)·Δc
    by_variance = -(u**2) * u0**2 / (u + u0) * (g * c0).sum(axes, keepdim=True)
    out = g * u + by_variance * (c + c0) / count
    return (out - out.mean(axes, keepdim=True)).reshape(m.shape)


def _measured(step: Step, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], Tensor | None]:
    """Shape and axes over which a normalisation takes its statistics, and γ in the shape of its input."""
    tail = (1,) * (len(size) - 2)
    if step.name == "native_layer_norm":
        inner = len(step.args[1])
        return size, tuple(range(len(size) - inner, len(size))), _value(step.args[2])
    gamma = _value(step.args[1])
    gamma = None if gamma is None else gamma.reshape(1, -1, *tail)
    if step.name == "native_group_norm":
        return (size[0], int(step.args[6]), math.prod(size[1:]) // int(step.args[6])), (2,), gamma
    return size, (0, *range(2, len(size))), gamma


def _value(thing: Any) -> Tensor | None:
    return thing.tensor() if isinstance(thing, Slot) else None


def softmax(m: Tensor, x: Tensor, x0: Tensor, axis: int) -> Tensor:
    """y = e/S with e = exp(x - k) and S their sum; k is the same in both runs."""
    top = torch.maximum(x, x0).amax(axis, keepdim=True)
    e, e0 = (x - top).exp(), (x0 - top).exp()
    s, s0 = e.sum(axis, keepdim=True), e0.sum(axis, keepdim=True)
    by_sum = -(m * (e + e0) / 2).sum(axis, keepdim=True) / (s * s0)
    return (m * (1 / s + 1 / s0) / 2 + by_sum) * slope(x, x0, e, e0, e)


def log_sum(pairs: Sequence[Pair], m: Tensor, axes: Axes) -> list[Tensor]:
    """y = log S, with S the sum of the exponentials of all pairs and along the axes; m stretches to the pairs."""
    top = torch.stack([torch.maximum(x, x0) for x, x0 in pairs]).amax(0)
    top = top.amax(axes, keepdim=True) if axes != () else top
    parts = [((x - top).exp(), (x0 - top).exp()) for x, x0 in pairs]
    sums = [sum(p[run] for p in parts) for run in (0, 1)]
    s, s0 = (torch.as_tensor(t) if axes == () else t.sum(axes, keepdim=True) for t in sums)  # type: ignore[union-attr]
    by_sum = m * slope(s, s0, s.log(), s0.log(), 1 / s)
    return [by_sum * slope(x, x0, e, e0, e) for (x, x0), (e, e0) in zip(pairs, parts, strict=True)]


def attention(step: Step, twin: Step, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers of query, key and value of softmax(q·kᵀ·scale + mask)·v."""
    (q, k, v), (q0, k0, v0) = ([s.tensor() for s in t.args[:3]] for t in (step, twin))
    scale, shift = attention_scale(step), attention_mask(step)
    x, x0 = q @ k.mT * scale + shift, q0 @ k0.mT * scale + shift
    weights, weights0 = x.softmax(-1), x0.softmax(-1)
    inner = softmax(m @ ((v + v0) / 2).mT, x, x0, -1) * scale
    return inner @ (k + k0) / 2, inner.mT @ (q + q0) / 2, ((weights + weights0) / 2).mT @ m


def attention_scale(step: Step) -> float:
    """What scores are multiplied with: 1/√d unless it was given."""
    given = step.kwargs.get("scale")
    return 1 / math.sqrt(step.args[0].tensor().shape[-1]) if given is None else float(given)


def attention_mask(step: Step) -> Tensor:
    """What is added to scores: -∞ where nothing may be seen."""
    query, key = step.args[0].tensor(), step.args[1].tensor()
    shift: Tensor = query.new_zeros(query.shape[-2], key.shape[-2])
    given = [a for a in (*step.args[3:], step.kwargs.get("attn_mask")) if isinstance(a, Slot)]
    for mask in given:
        value = mask.tensor()
        shift = shift.masked_fill(~value, -math.inf) if value.dtype == torch.bool else shift + value
    if _causal(step):
        shift = shift.masked_fill(torch.ones_like(shift, dtype=torch.bool).triu(1), -math.inf)
    return shift


def _causal(step: Step) -> bool:
    """The argument ``is_causal``, which stands in another place in every kernel."""
    names = [a.name for a in getattr(torch.ops.aten, step.name).default._schema.arguments]
    place = names.index("is_causal")
    if "is_causal" in step.kwargs:
        return bool(step.kwargs["is_causal"])
    return bool(step.args[place]) if place < len(step.args) else False


def variance(step: Step, m: Tensor, x: Pair, y: Pair) -> Tensor:
    """Variance, or deviation: Δv = Σ (c + c₀)·Δc / (n - correction), Δ√v = Δv / (√v + √v₀)."""
    axes = step.args[1] if len(step.args) > 1 and step.args[1] is not None else list(range(x[0].ndim))
    count = math.prod(x[0].shape[a] for a in axes) - float(step.kwargs.get("correction", 1) or 0)
    if step.name == "std":
        m = m / (y[0] + y[1]).clamp(min=SMALL)
    if not step.kwargs.get("keepdim", False):
        for axis in sorted(a % x[0].ndim for a in axes):
            m = m.unsqueeze(axis)
    both = x[0] + x[1]
    return m * (both - both.mean(tuple(axes), keepdim=True)) / count
