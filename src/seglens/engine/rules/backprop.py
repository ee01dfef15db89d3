"""Gradients with another way back through rectifiers: guided backpropagation and deconvolution (card B/B3).

Everything that is no rectifier hands on its own derivative, so nothing is refused that torch can differentiate; only
complex numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from seglens.engine.rules import weighted
from seglens.engine.rules.moves import ADDED, SUMS, Came, Gave, move, one, plain
from seglens.engine.rules.steps import Rule, Step, names, signs
from seglens.engine.rules.tape import Tape

# Rectifiers for which no guided rule has been published; what is done instead is declared.
LEAKY = names("leaky_relu _prelu_kernel rrelu_with_noise elu celu selu gelu silu mish hardswish softplus")


@dataclass(frozen=True)
class Backprop:
    """Rules of gradient, guided backpropagation or deconvolution.

    Guided: a ReLU hands on what is positive, where its input was positive. Deconvolution: what is positive. The leaky
    kind (leaky ReLU, ELU, GELU, SiLU …) has no published rule; here it hands on what is positive, guided times its own
    derivative, and the tape's ``declared`` names it.
    """

    kind: Literal["gradient", "guided", "deconvolution"]

    def choose(self, step: Step, tape: Tape) -> Rule | None:
        """The rule of an operation."""
        if self.kind != "gradient":
            if _rectifies(step):
                return POSITIVE if self.kind == "deconvolution" else GUIDED if step.name == "relu" else CEILED
            if step.name in LEAKY:
                tape.declared.add(step.name.strip("_").removesuffix("_kernel"))
                return SLOPED if self.kind == "guided" else POSITIVE
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


def _rectifies(step: Step) -> bool:
    """ReLU under any of its names, with a ceiling or without."""
    bounds = step.args[1:]
    return (
        step.name == "relu"
        or (step.name == "hardtanh" and len(bounds) > 0 and bounds[0] == 0)
        or (step.name in ("clamp_min", "clamp") and len(bounds) > 0 and bounds[0] == 0)
        or (step.name == "threshold" and tuple(bounds) == (0, 0))
    )


def _masked(step: Step, came: Came) -> Gave:
    return [(step.args[0], one(came) * step.answers[0].tensor())]


def _guided(step: Step, came: Came) -> Gave:
    return [(slot, values.clamp_(min=0)) for slot, values in _masked(step, came)]


def _sloped(step: Step, came: Came) -> Gave:
    return plain(step, [one(came).clamp(min=0)])


def _positive(step: Step, came: Came) -> Gave:
    return [(step.args[0], one(came).clamp(min=0))]


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
