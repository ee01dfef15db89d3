"""Layer-wise relevance propagation: each operation splits what its answer has among what it read (card B/B9).

Rules of operations with weights, for an input a, weights w, bias b and relevance R of the answer:
R_i = a_i Σ_j ρ(w_ij) R_j / (Σ_i a_i ρ(w_ij) + ρ(b_j) + ε).

- ``zero``, ``epsilon``: ρ(w) = w, without and with ε.
- ``gamma``: ρ(w) = w + γ·w⁺.
- ``z-plus``: only what is positive, a⁺w⁺ + a⁻w⁻; the second half is left out where a has no negative value.
- ``alpha-beta``: α times the positive part minus (α - 1) times the negative one.
- ``flat``: equal shares to all that was read. ``box``: z^B, for input between two bounds.

A batch norm counts as part of the convolution before it. Instance, group and layer norm take their statistics as
constants. Other operations: concatenation, copies and pooling hand each value what came of it; addition and averages
share in proportion; an activation hands everything on; of a product with a gate (what comes from a sigmoid or a
softmax) all goes to the signal, of a product of two signals half to each; max pooling to the winner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from seglens.engine.rules import weighted
from seglens.engine.rules.moves import (
    ATTENTION,
    COPIES,
    CURVES,
    MIXES,
    SUMS,
    WINNERS,
    Came,
    Gave,
    addends,
    derivative,
    move,
    one,
    plain,
    stretched_back,
)
from seglens.engine.rules.spread import attention_mask, attention_scale
from seglens.engine.rules.steps import Rule, Slot, Step, names
from seglens.engine.rules.tape import POSITIVE, Tape

Kind = Literal["zero", "epsilon", "gamma", "z-plus", "alpha-beta", "flat", "box"]
GATES = frozenset(("sigmoid", "hardsigmoid", "_softmax"))
SOFT = frozenset(("logsumexp", "logaddexp"))
PRODUCTS = frozenset(("mul", "div", "mm", "bmm"))
ABOVE = frozenset(("relu", "sigmoid", "hardsigmoid", "_softmax", "exp", "softplus", "abs", "square"))
# What these answer is nowhere below zero where nothing that they read is.
KEEPING_SIGN = names(
    "cat clone _to_copy max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest2d upsample_nearest3d upsample_bilinear2d "
    "upsample_trilinear3d replication_pad2d replication_pad3d"
)
STILL_INPUT = COPIES | MIXES | SUMS | {"mul", "div", "neg"}
KEEPING = STILL_INPUT | CURVES


@dataclass(frozen=True)
class Relevance:
    """A choice of LRP rules.

    Args:
        conv: rule of convolutions.
        dense: rule of matrix products.
        first: rule of the first convolution or product after the input; ``None``: as the others.
        epsilon: added to what is divided by, with its sign.
        gamma, alpha: of the rules of that name.
        by_size: addition and averages share by absolute values, which bounds what is handed on; else by values with
            their sign, as the formula has it. The two are the same where nothing negative is added.
        exact_norms: a normalisation that is no part of a convolution lets its shift absorb its share; else all is
            handed on.
        low, high: bounds of the input for ``box``, (1, C, 1, …).
    """

    conv: Kind = "z-plus"
    dense: Kind = "epsilon"
    first: Kind | None = "flat"
    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0
    by_size: bool = True
    exact_norms: bool = False
    low: Tensor | None = None
    high: Tensor | None = None

    def choose(self, step: Step, tape: Tape) -> Rule | None:
        """The rule of an operation."""
        first = _tag(step, tape)
        if weighted.is_weighted(step):
            kind = self.conv if step.name in weighted.CONVOLUTIONS else self.dense
            unsigned = tape.tagged(POSITIVE, step.reads[0].cell)
            return self._weights(self.first if first and self.first else kind, unsigned)
        if step.name in weighted.NORMS:
            return Rule("constants", self._norm, inputs=self.exact_norms, answers=(1, 2))
        name = "by size" if self.by_size else "in proportion"
        if step.name in SUMS:
            return Rule(name, self._sum, inputs=True)
        if step.name in MIXES and len(step.reads) == 1:
            return Rule(name, self._mix, inputs=True)
        if step.name in PRODUCTS and len(step.reads) == 2:
            return self._product(step, tape)
        if step.name in ATTENTION:
            return Rule("value", self._attention, inputs=True)
        return move(step) or _other(step)

    def finish(self, tape: Tape) -> None:
        """Normalisations go into the convolution before them."""
        weighted.fold(tape, lambda _: True)

    def _weights(self, kind: Kind, unsigned: bool) -> Rule:
        answers = (0,) if kind in ("zero", "epsilon") else ()
        return Rule(kind, lambda step, came: self._share(kind, step, one(came), unsigned), inputs=True, answers=answers)

    def _share(self, kind: Kind, step: Step, r: Tensor, unsigned: bool) -> Gave:
        """The rule of an operation with weights; what a normalisation does afterwards counts as its own."""
        op, after = weighted.weighted(step), weighted.folded_affine(step)
        x, w, b, scale = op.x.tensor(), op.weight, op.bias, None
        if after is not None:
            b = after.shift if b is None else after.shift + b * after.factor
            w = op.times(after.factor.flatten() if after.fixed else after.sign)
            scale = None if after.fixed else after.factor.abs()
        part = _Part(op, r, scale, 0.0 if kind == "zero" else self.epsilon)
        if kind in ("zero", "epsilon"):
            z = step.answers[0].tensor()
            return [(op.x, part.handed([(x, w)], z if after is None else z * after.factor + after.shift, part.epsilon))]
        if kind == "flat":
            even = _Part(op, r, None, 0.0)
            return [(op.x, even.shared([(torch.ones_like(x), torch.ones_like(w))], None))]
        if kind == "box":
            return [(op.x, self._box(part, x, w))]
        if kind == "gamma":
            b = None if b is None else b + self.gamma * b.clamp(min=0)
            return [(op.x, part.shared([(x, w + self.gamma * w.clamp(min=0))], b))]
        below = None if unsigned or float(x.amin()) >= 0 else x.clamp(max=0)
        above = x if below is None else x.clamp(min=0)
        up, down = w.clamp(min=0), w.clamp(max=0)
        positive = part.shared(_pairs((above, up), (below, down)), None if b is None else b.clamp(min=0), 1)
        if kind == "z-plus":
            return [(op.x, positive)]
        negative = part.shared(_pairs((above, down), (below, up)), None if b is None else b.clamp(max=0), -1)
        return [(op.x, self.alpha * positive - (self.alpha - 1) * negative)]

    def _box(self, part: _Part, x: Tensor, w: Tensor) -> Tensor:
        low, high = (self._bound(v, x) for v in (self.low, self.high))
        up, down = w.clamp(min=0), w.clamp(max=0)
        z = part.op.forward(x, w) - part.op.forward(low, up) - part.op.forward(high, down)
        q = divided(part.r, z, part.epsilon)
        return x * part.op.back(q, w) - low * part.op.back(q, up) - high * part.op.back(q, down)

    def _bound(self, bound: Tensor | None, x: Tensor) -> Tensor:
        assert bound is not None  # composites with a box are made with bounds
        fits = bound.ndim == x.ndim and bound.shape[1] == x.shape[1]
        return (bound if fits else bound.mean()).to(x).expand_as(x)

    def _norm(self, step: Step, came: Came) -> Gave:
        slot, r = step.args[0], one(came)
        if step.folded or not self.exact_norms:
            return [(slot, r)]
        done = weighted.affine(step)
        kept = slot.tensor() * done.factor
        return [(slot, kept * divided(r, kept + done.shift, self.epsilon))]

    def _sum(self, step: Step, came: Came) -> Gave:
        r = one(came)
        parts = [(t, (t.tensor() if isinstance(t, Slot) else r.new_tensor(t)) * f) for t, f in addends(step)]
        if self.by_size:
            parts = [(t, v.abs()) for t, v in parts]
        q = divided(r, parts[0][1] + parts[1][1], self.epsilon)
        return [(t, stretched_back(q * v, t.cell.size)) for t, v in parts if isinstance(t, Slot) and t.cell is not None]

    def _mix(self, step: Step, came: Came) -> Gave:
        (slot,) = step.reads
        leaf = slot.tensor().detach()
        leaf = (leaf.abs() if self.by_size else leaf.clone()).requires_grad_(True)
        with torch.enable_grad():
            args, kwargs = tree_map(lambda a: (leaf if a is slot else a.value) if isinstance(a, Slot) else a,
                                    (step.args, step.kwargs))  # fmt: skip
            out = step.run(*args, **kwargs)
        (handed,) = derivative([(out, divided(one(came), out.detach(), self.epsilon))], [leaf])
        return [] if handed is None else [(slot, leaf.detach() * handed)]

    def _product(self, step: Step, tape: Tape) -> Rule:
        """Two factors that both come from the input: the gate gets nothing."""
        gates = [tape.tagged("gate", s.cell) for s in step.reads if s.cell is not None]
        sizes = [torch.Size(s.cell.size).numel() for s in step.reads if s.cell is not None]
        signal: int | None = None
        if step.name == "div":
            signal = 0
        elif gates[0] != gates[1]:
            signal = gates.index(False)
        elif step.name == "mul" and sizes[0] != sizes[1]:
            signal = sizes.index(max(sizes))
        if signal is None:
            tape.declared.add(step.name)
        name = "half each" if signal is None else "signal"
        matrix = step.name in ("mm", "bmm")
        return Rule(name, lambda s, c: self._factors(s, one(c), signal), inputs=matrix)

    def _factors(self, step: Step, r: Tensor, signal: int | None) -> Gave:
        share = 0.5 if signal is None else 1.0
        slots = [s for n, s in enumerate(step.args[:2]) if signal in (None, n)]
        if step.name not in ("mm", "bmm"):
            return [(s, stretched_back(r * share, s.cell.size)) for s in slots]
        return [(s, share * self._matrix(s, step.args[0], step.args[1], r)) for s in slots]

    def _matrix(self, slot: Slot, left: Slot, right: Slot, r: Tensor) -> Tensor:
        a, b = left.tensor(), right.tensor()
        if slot is left:
            own = a.abs() if self.by_size else a
            other = b.abs() if self.by_size else b
            return own * (divided(r, own @ other, self.epsilon) @ other.mT)
        own = b.abs() if self.by_size else b
        other = a.abs() if self.by_size else a
        return own * (other.mT @ divided(r, other @ own, self.epsilon))

    def _attention(self, step: Step, came: Came) -> Gave:
        """Softmax times value: all goes to the value."""
        q, k, v = (s.tensor() for s in step.args[:3])
        weights = (q @ k.mT * attention_scale(step) + attention_mask(step)).softmax(-1)
        own = v.abs() if self.by_size else v
        return [(step.args[2], own * (weights.mT @ divided(one(came), weights @ own, self.epsilon)))]


@dataclass(frozen=True, eq=False)
class _Part:
    """One fraction of a rule: numerators a·w, and the relevance that they share.

    Args:
        op: the operation.
        r: relevance of the answer.
        scale: what a normalisation multiplies the answer with, beyond what the weights hold.
        epsilon: of the denominator.
    """

    op: weighted.Weighted
    r: Tensor
    scale: Tensor | None
    epsilon: float

    def shared(self, parts: list[tuple[Tensor, Tensor]], bias: Tensor | None, sign: int = 0) -> Tensor:
        """Relevance in proportion to Σ a·w over (a, w), beside what is added; ``sign`` is that of all of these."""
        added = bias
        if sign and self.epsilon:  # ε needs no look at the sign, and goes with the bias
            added = (self.r.new_zeros((1,) * self.r.ndim) if bias is None else bias) + sign * self.epsilon
        fused = added if self.scale is None else None
        z = self.op.forward(*parts[0], fused)
        for a, w in parts[1:]:
            z += self.op.forward(a, w)
        if self.scale is not None:
            z *= self.scale
            z = z if added is None else z.add_(added)
        return self.handed(parts, z, 0.0 if sign and self.epsilon else self.epsilon, safe=bool(sign and self.epsilon))

    def handed(self, parts: list[tuple[Tensor, Tensor]], z: Tensor, epsilon: float, safe: bool = False) -> Tensor:
        """The same, the denominator being known; ``safe``: it is nowhere 0."""
        q = torch.div(self.r, z) if safe else divided(self.r, z, epsilon)
        if self.scale is not None:
            q *= self.scale
        out = self.op.back(q, parts[0][1]).mul_(parts[0][0])
        for a, w in parts[1:]:
            out += self.op.back(q, w).mul_(a)
        return out


def divided(r: Tensor, z: Tensor, epsilon: float) -> Tensor:
    """r / (z + ε·sign z); without ε nothing where z is 0; a new tensor."""
    if epsilon == 0:
        return torch.where(z == 0, 0, r / z)
    return torch.copysign(z.new_tensor(epsilon), z).add_(z).reciprocal_().mul_(r)


def _pairs(*parts: tuple[Tensor | None, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(a, w) for a, w in parts if a is not None]


def _tag(step: Step, tape: Tape) -> bool:
    """Note what is the input still, and what is a gate; tells whether an operation reads nothing but the input."""
    raw, gate = (all(tape.tagged(tag, s.cell) for s in step.reads if s.cell) for tag in ("input", "gate"))
    if raw and (step.name in STILL_INPUT or step.name in weighted.NORMS):
        step.tags += ("input",)
    if step.name in GATES or (gate and step.name in KEEPING):
        step.tags += ("gate",)
    kept = step.name in KEEPING_SIGN and not step.constants and all(tape.tagged(POSITIVE, s.cell) for s in step.reads)
    if step.name in ABOVE or kept:
        step.tags += (POSITIVE,)
    return raw


def _pass(step: Step, came: Came) -> Gave:
    (slot,) = step.reads[:1]
    assert slot.cell is not None
    return [(slot, stretched_back(one(came), slot.cell.size))]


def _other(step: Step) -> Rule | None:
    if step.name in CURVES or step.name in ("_softmax", "_log_softmax", "neg", "mul", "div"):
        return PASSED
    return WINNER if step.name in WINNERS or step.name in SOFT else None


PASSED = Rule("pass", _pass)
WINNER = Rule("winner", plain, inputs=True)

COMPOSITES = {
    "epsilon-plus-flat": Relevance(),
    "epsilon-plus": Relevance(first=None),
    "epsilon-gamma-box": Relevance(conv="gamma", first="box"),
    "alpha2-beta1-flat": Relevance(conv="alpha-beta"),
    "alpha2-beta1": Relevance(conv="alpha-beta", first=None),
    "z-plus": Relevance(dense="z-plus", first=None),
    "gamma": Relevance(conv="gamma", dense="gamma", first=None),
    "epsilon": Relevance("epsilon", "epsilon", None, by_size=False, exact_norms=True),
    "lrp-0": Relevance("zero", "zero", None, epsilon=0.0, by_size=False, exact_norms=True),
}
