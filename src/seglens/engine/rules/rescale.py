"""DeepLift's rescale rule: what a difference of the input becomes, operation by operation (cards B/B6, B/B7).

The network runs on the baseline and on the input, both are recorded, and multipliers go back: m with
Σ m·Δinput = Δanswer, exactly, for every operation. Linear ones hand on their derivative, those of one number
Δanswer/Δinput. Where two things that both change are multiplied, each is taken times the other's mean over the two
runs: Δ(ab) = b̄·Δa + ā·Δb. So the sum rule holds for gates, attention and normalisations, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seglens.core.errors import NoRule
from seglens.engine.rules import spread, weighted
from seglens.engine.rules.backprop import LINEAR
from seglens.engine.rules.moves import (
    ADDED,
    ATTENTION,
    CURVES,
    MIXES,
    SUMS,
    WINNERS,
    Came,
    Gave,
    move,
    one,
    plain,
    stretched_back,
)
from seglens.engine.rules.spread import SMALL, slope
from seglens.engine.rules.steps import Rule, Slot, Step
from seglens.engine.rules.tape import Tape

PRODUCTS = frozenset(["mul", "div", "mm", "bmm"])
LOWEST = frozenset(["min", "amin", "minimum"])
HIGHEST = frozenset(["max", "amax", "maximum"]) | {w for w in WINNERS if "pool" in w}


@dataclass(frozen=True)
class Rescale:
    """Rules of DeepLift; every step needs its twin in the run on the baseline: see :func:`pair`."""

    def choose(self, step: Step, tape: Tape) -> Rule | None:
        """The rule of an operation."""
        alone = len(step.reads) == 1
        if weighted.is_weighted(step):
            return LINEAR
        if step.name in SUMS:
            return ADDED
        if step.name in PRODUCTS:
            fixed = alone and not (step.name == "div" and _moves(step.args[1]))
            return TIMES if fixed else PRODUCT
        if step.name in weighted.NORMS:
            return FIXED if weighted.is_fixed(step) else NORMALISED
        if step.name in HIGHEST | LOWEST:
            return WINNER
        if step.name in MIXES or step.name == "neg":
            return TIMES if alone or "grid" not in step.name else None
        if step.name == "relu":
            return RECTIFIED
        return move(step) or OTHERS.get(step.name) or (CURVED if step.name in CURVES else None)

    def finish(self, tape: Tape) -> None:
        """Batch norm goes into the convolution before it."""
        weighted.fold(tape, weighted.is_fixed)


def pair(tape: Tape, baseline: Tape, network: int | None = None) -> None:
    """Let each step of one run know the same step of the other.

    Args:
        tape, baseline: the two runs.
        network: so many steps are the network's own, by default all; those of a live target choose pixels anew.

    Raises:
        NoRule: the network takes another way on the baseline than on the image.
    """
    ours, theirs = ([s for s in t.steps if isinstance(s, Step)] for t in (tape, baseline))
    own = len(ours) if network is None else network
    if len(ours) != len(theirs) or not all(
        _same(a, b, strictly=n < own) for n, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ):
        raise NoRule(
            "The network runs other operations on the baseline than on the image, or the same with other masks or "
            "fixed numbers that it makes of what it sees, so the two cannot be compared.",
            fix="Choose another baseline, or a method without one, such as vanilla-gradient or lrp.",
        )
    for step, twin in zip(ours, theirs, strict=True):
        step.twin = twin


def _same(step: Step, twin: Step, *, strictly: bool) -> bool:
    """Whether two steps are the same operation, ``strictly`` with the same numbers, masks and places, too."""
    one, two = ([s.cell and s.cell.size for s in t.answers] for t in (step, twin))
    if step.name != twin.name or one != two:
        return False
    if not _alike(step.args, twin.args) or not _alike([*step.kwargs.items()], [*twin.kwargs.items()]):
        return False
    return not strictly or all(_equal(a.value, b.value) for a, b in zip(step.constants, twin.constants, strict=True))


def _alike(one: Any, two: Any) -> bool:
    """Whether arguments are the same, whatever tensors are among them."""
    if isinstance(one, Slot) or isinstance(two, Slot):
        return isinstance(one, Slot) and isinstance(two, Slot)
    if isinstance(one, (tuple, list)) and isinstance(two, (tuple, list)):
        return len(one) == len(two) and all(map(_alike, one, two))
    return bool(one == two)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    # weights are the same memory in both runs, and need no look at their values
    same = a.data_ptr() == b.data_ptr() and a.stride() == b.stride()
    return a.shape == b.shape and a.dtype == b.dtype and (same or torch.equal(a, b))


def _moves(thing: object) -> bool:
    return isinstance(thing, Slot) and thing.cell is not None


def _both(step: Step, place: int = 0) -> tuple[Tensor, Tensor]:
    """An argument in the two runs; a number becomes a tensor."""
    found = []
    for run in (step, twin(step)):
        thing = run.args[place]
        value = thing.value if isinstance(thing, Slot) else torch.tensor(float(thing))
        assert value is not None
        found.append(value)
    return found[0], found[1]


def _answers(step: Step, number: int = 0) -> tuple[Tensor, Tensor]:
    """An answer in the two runs."""
    here, there = step.answers[number].value, twin(step).answers[number].value
    assert here is not None
    assert there is not None
    return here, there


def twin(step: Step) -> Step:
    """The same step in the run on the baseline."""
    assert step.twin is not None  # pair() has seen to it
    return step.twin


def _given(step: Step, values: Sequence[Tensor]) -> Gave:
    return [
        (s, stretched_back(v, s.cell.size))
        for s, v in zip(step.args, values, strict=False)
        if isinstance(s, Slot) and s.cell is not None
    ]


def _curved(step: Step, came: Came) -> Gave:
    """An operation of one number: the slope between the two runs."""
    x, x0 = _both(step)
    y, y0 = _answers(step)
    ((_, derivative), *_rest) = plain(step, [torch.ones_like(y)])
    return [(step.args[0], one(came) * slope(x, x0, y, y0, derivative))]


def _rectified(step: Step, came: Came) -> Gave:
    """ReLU, the same in fewer passes over memory; its answers are made again instead of kept."""
    x, x0 = _both(step)
    dx = x - x0
    slopes = x.clamp(min=0).sub_(x0.clamp(min=0)).div_(dx)
    return [(step.args[0], torch.where(dx.abs_() < SMALL, x > 0, slopes).mul_(one(came)))]


def _product(step: Step, came: Came) -> Gave:
    m, (a, a0), (b, b0) = one(came), _both(step), _both(step, 1)
    middle, other = (a + a0) / 2, (b + b0) / 2
    if step.name == "div":
        turned = slope(b, b0, 1 / b, 1 / b0, -1 / b**2)
        return _given(step, (m * (1 / b + 1 / b0) / 2, m * middle * turned))
    if step.name == "mul":
        return _given(step, (m * other, m * middle))
    return _given(step, (m @ other.mT, middle.mT @ m))


def _normalised(step: Step, came: Came) -> Gave:
    slot, m = step.args[0], one(came)
    if step.folded:
        return [(slot, m)]
    if weighted.is_fixed(step):
        return [(slot, m * weighted.affine(step).factor)]
    return [(slot, spread.normalised(step, m, _both(step), _answers(step, 1), _answers(step, 2)))]


def _winner(step: Step, came: Came) -> Gave:
    """The part of the difference up to the larger of both answers to one winner, the rest to the other."""
    m, (y, y0) = one(came), _answers(step)
    top = torch.minimum(y, y0) if step.name in LOWEST else torch.maximum(y, y0)
    rule = move(step)
    back = plain if rule is None else rule.back
    here, there, slopes = back(step, [m * (top - y0)]), back(twin(step), [m * (y - top)]), back(step, [m])
    gave = []
    for (slot, one_), (other, two), (_, derivative) in zip(here, there, slopes, strict=True):
        assert slot.value is not None
        assert other.value is not None
        gave.append((slot, slope(slot.value, other.value, one_ + two, torch.zeros_like(two), derivative)))
    return gave


def _softmax(step: Step, came: Came) -> Gave:
    return [(step.args[0], spread.softmax(one(came), *_both(step), int(step.args[1])))]


def _log_softmax(step: Step, came: Came) -> Gave:
    m, axis = one(came), int(step.args[1])
    (handed,) = spread.log_sum((_both(step),), m.sum(axis, keepdim=True), axis)
    return [(step.args[0], m - handed)]


def _log_sum(step: Step, came: Came) -> Gave:
    m, axes = one(came), step.args[1]
    if len(step.args) < 3 or not step.args[2]:
        for axis in sorted(a % one_dims(step) for a in axes):
            m = m.unsqueeze(axis)
    return [(step.args[0], spread.log_sum((_both(step),), m, tuple(axes))[0])]


def one_dims(step: Step) -> int:
    """Axes of the first argument."""
    return len(step.args[0].cell.size)


def _log_add(step: Step, came: Came) -> Gave:
    pairs = tuple(tuple(t.expand_as(one(came)) for t in _both(step, place)) for place in (0, 1))
    return _given(step, spread.log_sum(pairs, one(came), ()))  # type: ignore[arg-type]


def _attention(step: Step, came: Came) -> Gave:
    return _given(step, spread.attention(step, twin(step), one(came)))


def _spread(step: Step, came: Came) -> Gave:
    """Variance or deviation."""
    return [(step.args[0], spread.variance(step, one(came), _both(step), _answers(step)))]


TIMES = Rule("gradient", plain)
PRODUCT = Rule("product", _product, inputs=True)
RECTIFIED = Rule("rescale", _rectified, inputs=True)
CURVED = Rule("rescale", _curved, inputs=True, answers=(0,))
FIXED = Rule("gradient", _normalised)
NORMALISED = Rule("product", _normalised, inputs=True, answers=(1, 2))
WINNER = Rule("rescale", _winner, inputs=True, answers=(0,))
OTHERS = {
    "_softmax": Rule("rescale", _softmax, inputs=True),
    "_log_softmax": Rule("rescale", _log_softmax, inputs=True),
    "logsumexp": Rule("rescale", _log_sum, inputs=True),
    "logaddexp": Rule("rescale", _log_add, inputs=True),
    "var": Rule("rescale", _spread, inputs=True, answers=(0,)),
    "std": Rule("rescale", _spread, inputs=True, answers=(0,)),
} | dict.fromkeys(ATTENTION, Rule("product", _attention, inputs=True))
