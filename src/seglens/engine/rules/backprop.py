"""Gradients with another way back through rectifiers: guided backpropagation and deconvolution (card B/B3).

Everything that is no rectifier hands on its own derivative, so nothing is refused that torch can differentiate; only
complex numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from seglens.engine.rules import weighted
from seglens.engine.rules.moves import ADDED, SUMS, Came, Gave, move, one, plain, stretched_back
from seglens.engine.rules.rectifiers import rectifies, written_out
from seglens.engine.rules.steps import Rule, Slot, Step, names, signs
from seglens.engine.rules.tape import Tape

RECTIFIERS = frozenset(["guided", "positive", "positive, times slope"])  # the names of their rules
CEILINGS = names("hardtanh clamp clamp_min threshold")
# Rectifiers for which no guided rule has been published; what is done instead is declared.
LEAKY = names("leaky_relu _prelu_kernel rrelu_with_noise elu celu selu gelu silu mish hardswish softplus")


@dataclass(frozen=True)
class Backprop:
    """Rules of gradient, guided backpropagation or deconvolution.

    Guided: a ReLU hands on what is positive, where its input was positive. Deconvolution: what is positive. The leaky
    kind (leaky ReLU, ELU, GELU, SiLU …) has no published rule; here it hands on what is positive, guided times its own
    derivative, and the tape's ``declared`` names it. Both kinds are known, too, where they are written out.
    """

    kind: Literal["gradient", "guided", "deconvolution"]

    def choose(self, step: Step, tape: Tape) -> Rule | None:
        """The rule of an operation."""
        if self.kind != "gradient":
            if rectifies(step):
                return POSITIVE if self.kind == "deconvolution" else CEILED if step.name in CEILINGS else GUIDED
            if step.name in LEAKY:
                tape.declared.add(step.name.strip("_").removesuffix("_kernel"))
                return SLOPED if self.kind == "guided" else POSITIVE
            if (signal := written_out(step, tape)) is not None:
                tape.declared.add(f"an activation written out with {step.name}")
                return SLOPED if self.kind == "guided" else _handing(signal)
        if weighted.is_weighted(step):
            return LINEAR
        if step.name in weighted.NORMS:
            return NORMALISED if weighted.is_fixed(step) else MEASURED
        if step.name == "relu":
            return MASKED
        if step.name in SUMS:
            return ADDED
        return move(step) or PLAIN

    def finish(self, tape: Tape) -> None:
        """Batch norm goes into the convolution before it."""
        weighted.fold(tape, weighted.is_fixed)


def rectified(tape: Tape) -> bool:
    """Whether any rectifier was met: without one, what comes back is the plain gradient."""
    return any(isinstance(s, Step) and s.rule is not None and s.rule.name in RECTIFIERS for s in tape.steps)


def _masked(step: Step, came: Came) -> Gave:
    return _to(step.reads[0], one(came) * step.answers[0].tensor())


def _to(slot: Slot, values: Tensor) -> Gave:
    assert slot.cell is not None  # rectifiers read something of the input
    return [(slot, stretched_back(values, slot.cell.size))]


def _guided(step: Step, came: Came) -> Gave:
    return [(slot, values.clamp_(min=0)) for slot, values in _masked(step, came)]


def _sloped(step: Step, came: Came) -> Gave:
    return plain(step, [one(came).clamp(min=0)])


def _positive(step: Step, came: Came) -> Gave:
    return _to(step.reads[0], one(came).clamp(min=0))


def _handing(signal: Slot) -> Rule:
    """All that is positive goes to the signal of an activation that is written out."""
    return Rule("positive", lambda _, came: _to(signal, one(came).clamp(min=0)))


def linear(step: Step, came: Came) -> Gave:
    """Multiplication with fixed weights, transposed; with those of a batch norm that was folded in."""
    op, done = weighted.weighted(step), weighted.folded_affine(step)
    return [(op.x, op.back(one(came), op.weight if done is None else op.times(done.factor.flatten())))]


def _normalised(step: Step, came: Came) -> Gave:
    if step.folded:
        return [(step.args[0], one(came))]
    if weighted.is_fixed(step):
        return [(step.args[0], one(came) * weighted.affine(step).factor)]
    return plain(_bare(step), came[:1])


def _bare(step: Step) -> Step:
    """A normalisation that cannot touch the statistics that the network keeps."""
    if step.name in weighted.BATCH_NORMS and len(step.args) == 8:
        return replace(step, args=(*step.args[:3], None, None, *step.args[5:]))
    return step


GUIDED = Rule("guided", _guided, answers=(0,), kept=signs)
CEILED = Rule("guided", _sloped, inputs=True)
SLOPED = Rule("positive, times slope", _sloped, inputs=True)
POSITIVE = Rule("positive", _positive)
MASKED = Rule("gradient", _masked, answers=(0,), kept=signs)
LINEAR = Rule("gradient", linear)
NORMALISED = Rule("gradient", _normalised)
MEASURED = Rule("gradient", _normalised, inputs=True)
PLAIN = Rule("gradient", plain, inputs=True)
