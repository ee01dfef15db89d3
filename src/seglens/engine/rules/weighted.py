"""Operations that multiply with fixed weights, and what normalisations do to their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seglens.engine.rules.steps import Slot, Step, names
from seglens.engine.rules.tape import Tape

CONVOLUTIONS = frozenset(("convolution", "_convolution", "convolution_overrideable"))
DENSE = frozenset(("addmm", "mm", "bmm", "baddbmm", "linear", "mv"))
WEIGHTED = CONVOLUTIONS | DENSE
BATCH_NORMS = names(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "miopen_batch_norm _batch_norm_with_update"
)
NORMS = BATCH_NORMS | {"native_group_norm", "native_layer_norm"}


@dataclass(frozen=True, eq=False)
class Weighted:
    """One run of a convolution or a matrix product with constants.

    Args:
        x: what came from the input.
        weight: the constants.
        bias: what is added, stretched to the answer; ``None``: nothing.
        forward: (x, weight) to the answer without bias, or (x, weight, bias) to the whole; always a new tensor.
        back: (what came back, weight) to what is handed on: the transposed operation.
        outward: axis of the weight that belongs to the answer's channels; ``groups``: of a transposed convolution.
    """

    x: Slot
    weight: Tensor
    bias: Tensor | None
    forward: Callable[..., Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    outward: int = 0
    groups: int = 1

    def times(self, factor: Tensor) -> Tensor:
        """The weights, each multiplied by a factor (K,) of its answer's channel."""
        w = self.weight
        if self.outward == 1 and self.groups > 1:  # a transposed convolution counts its channels group by group
            split = w.reshape(self.groups, -1, *w.shape[1:])
            shaped = factor.reshape(self.groups, 1, -1, *(1,) * (w.ndim - 2))
            return (split * shaped).reshape(w.shape)
        shape = [1] * w.ndim
        shape[self.outward] = -1
        return w * factor.reshape(shape)


def is_weighted(step: Step) -> bool:
    """Whether an operation multiplies what comes from the input with constants alone."""
    if step.name not in WEIGHTED:
        return False
    factors = step.args[1:3] if step.name in ("addmm", "baddbmm") else step.args[:2]
    return sum(isinstance(f, Slot) and f.cell is not None for f in factors) == 1 and _plain_bias(step)


def _plain_bias(step: Step) -> bool:
    bias = step.args[0] if step.name in ("addmm", "baddbmm") else step.args[2] if len(step.args) > 2 else None
    scaled = any(step.kwargs.get(k, 1) != 1 for k in ("alpha", "beta"))
    return not scaled and (bias is None or bias.cell is None)


def weighted(step: Step) -> Weighted:
    """Read the arguments of an operation for which :func:`is_weighted` holds."""
    return _convolution(step) if step.name in CONVOLUTIONS else _product(step)


def _convolution(step: Step) -> Weighted:
    x, weight, bias = step.args[0], step.args[1], step.args[2]
    how = step.args[3:9]  # stride, padding, dilation, transposed, output padding, groups
    transposed, groups = bool(how[3]), int(how[5])
    like = x.tensor()
    channels = weight.value.shape[1] * groups if transposed else weight.value.shape[0]

    def forward(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        each = b is not None and b.numel() in (1, channels)  # one number per channel goes with the convolution
        flat = b.flatten().expand(channels) if b is not None and each else None
        out = torch.as_tensor(torch.ops.aten.convolution(x, w, flat, *how))
        return out if b is None or each else out.add_(b)

    def back(r: Tensor, w: Tensor) -> Tensor:
        handed, *_ = torch.ops.aten.convolution_backward(r, like, w, None, *how, [True, False, False])
        return torch.as_tensor(handed)

    added = None if bias is None else bias.value.reshape(1, -1, *(1,) * (like.ndim - 2))
    return Weighted(x, weight.value, added, forward, back, 1 if transposed else 0, groups)


def _product(step: Step) -> Weighted:
    bias = None
    if step.name in ("addmm", "baddbmm"):
        bias, one, two = step.args[:3]
    else:
        one, two = step.args[:2]
        bias = step.args[2] if len(step.args) > 2 else None
    if step.name == "linear":
        return Weighted(one, two.value, _value(bias), lambda x, w, b=None: _plus(x @ w.T, b), lambda r, w: r @ w, 0)
    if one.cell is not None:
        turned = (lambda r, w: torch.outer(r, w)) if step.name == "mv" else lambda r, w: r @ w.mT
        return Weighted(one, two.value, _value(bias), lambda x, w, b=None: _plus(x @ w, b), turned, two.value.ndim - 1)
    forward = lambda x, w, b=None: _plus(w @ x, b)  # noqa: E731
    return Weighted(two, one.value, _value(bias), forward, lambda r, w: w.mT @ r, one.value.ndim - 1)


def _plus(z: Tensor, b: Tensor | None) -> Tensor:
    return z if b is None else z.add_(b)


def _value(slot: Slot | None) -> Tensor | None:
    return None if slot is None else slot.value


@dataclass(frozen=True, eq=False)
class Affine:
    """What a normalisation does to its input, its statistics taken as constants: times factor, plus shift.

    Args:
        factor: stretches to the input.
        fixed: the same for every sample: statistics that were learnt, not measured.
        shifts, signs: make what few ask for.
    """

    factor: Tensor
    fixed: bool
    shifts: Callable[[], Tensor]
    signs: Callable[[], Tensor]

    @cached_property
    def shift(self) -> Tensor:
        """Stretches to the input."""
        return self.shifts()

    @cached_property
    def sign(self) -> Tensor:
        """Of the factor, per channel (K,)."""
        return self.signs()


def is_fixed(step: Step) -> bool:
    """Whether a normalisation takes the statistics that were learnt."""
    if step.name == "_native_batch_norm_legit_no_training":
        return True
    return step.name in BATCH_NORMS and isinstance(step.args[5], bool) and not step.args[5]


def affine(step: Step) -> Affine:
    """The factor and shift of a normalisation; needs its answers 1 and 2 unless it is fixed."""
    x, weight, bias = (step.args[i] for i in ((0, 2, 3) if step.name == "native_layer_norm" else (0, 1, 2)))
    assert x.cell is not None
    size = x.cell.size
    tail = (1,) * (len(size) - 2)
    if step.name == "native_layer_norm":
        mean, deviation = (a.tensor() for a in step.answers[1:3])
        return _joined(mean, deviation, _value(weight), _value(bias), fixed=False, shape=None)
    if step.name == "native_group_norm":
        groups = int(step.args[6])
        mean, deviation = (
            a.tensor().reshape(size[0], groups, 1).expand(-1, -1, size[1] // groups).reshape(size[0], size[1], *tail)
            for a in step.answers[1:3]
        )
        return _joined(mean, deviation, _value(weight), _value(bias), fixed=False, shape=(1, -1, *tail))
    if is_fixed(step):
        eps = float(step.args[-1] if step.name == "_native_batch_norm_legit_no_training" else step.args[7])
        mean, deviation = step.args[3].value, (step.args[4].value + eps).rsqrt()
    else:
        mean, deviation = (a.tensor() for a in step.answers[1:3])
    mean, deviation = (v.reshape(1, -1, *tail) for v in (mean, deviation))
    return _joined(mean, deviation, _value(weight), _value(bias), fixed=is_fixed(step), shape=(1, -1, *tail))


def _joined(mean: Any, deviation: Any, weight: Any, bias: Any, *, fixed: bool, shape: Any) -> Affine:
    if weight is None:
        weight = torch.ones((), dtype=mean.dtype, device=mean.device)
    elif shape is not None:
        weight = weight.reshape(shape)
    factor = weight * deviation

    def shifts() -> Tensor:
        shift = -mean * factor
        return torch.as_tensor(shift if bias is None else shift + (bias if shape is None else bias.reshape(shape)))

    return Affine(factor, fixed, shifts, lambda: torch.as_tensor(weight.sign().flatten()))


def fold(tape: Tape, which: Callable[[Step], bool]) -> None:
    """Let normalisations count as part of the convolution before them, where nothing else reads its answer.

    They are matched by where values lie, not by the order in which modules were registered.

    Args:
        tape: what was recorded; nothing goes back yet.
        which: normalisations that may.
    """
    writer = {s.answers[0].cell.store: s for s in tape.steps if isinstance(s, Step) and s.answers and s.answers[0].cell}
    for step in tape.steps:
        if not isinstance(step, Step) or step.name not in BATCH_NORMS | {"native_group_norm"} or not which(step):
            continue
        before: Step | None = step
        while before is step or (before is not None and before.name == "clone"):
            cell = before.args[0].cell
            alone = cell is not None and tape.uses[cell.store] == tape.writes[cell.store] == 1 and cell.whole
            before = writer.get(cell.store) if alone else None
        if before is not None and before.name in CONVOLUTIONS and is_weighted(before):
            before.affine, step.folded = step, True


def folded_affine(step: Step) -> Affine | None:
    """What the normalisation that counts as part of a convolution does to its answer, in the answer's shape."""
    if step.affine is None:
        return None
    found, cell = affine(step.affine), step.answers[0].cell
    assert cell is not None
    samples, channels, *space = cell.size
    # instance norm sees samples as channels
    per = samples if found.factor.numel() == samples * channels else 1
    shape = (per, channels, *(1,) * len(space))

    def signs() -> Tensor:
        return found.sign.expand(channels) if found.sign.numel() == 1 else found.sign.reshape(-1, channels)[0]

    return Affine(found.factor.reshape(shape), found.fixed, lambda: found.shift.reshape(shape), signs)
