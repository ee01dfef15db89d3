"""What methods with rules of their own for the way back share: names of the rules, and what has to be said of them."""

from dataclasses import replace
from typing import Annotated, Literal

from torch import Tensor

from seglens.core.explanation import Figure
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.rules import COMPOSITES, Backprop, Flow, Relevance, Trace, rectified

Composite = Annotated[
    Literal[
        "epsilon-plus-flat", "epsilon-plus", "epsilon-gamma-box", "alpha2-beta1-flat", "alpha2-beta1", "z-plus",
        "gamma", "epsilon", "lrp-0",
    ],
    Param(
        "Rules for convolutions, matrix products and the first layer. Those with plus or alpha are stable, but depend "
        "little on the weights; epsilon asks them all; lrp-0 is the plain formula, which blows up where contributions "
        "cancel."
    ),
]  # fmt: skip

Gamma = Annotated[
    float, Param("How much more positive weights count, in the rule of that name.", gt=0, le=100, step=0.05)
]


def composite(case: Case, name: str, gamma: float) -> Relevance:
    """Rules by name; bounds of the box are those of each channel of the image."""
    rules, space = COMPOSITES[name], tuple(range(2, case.x.ndim))
    low, high = (edge(case.x, space, keepdim=True) for edge in (Tensor.amin, Tensor.amax))
    return replace(rules, gamma=gamma, low=low, high=high)


def insensitive(name: str) -> str:
    """That rules by this name depend little on the weights, as a further sentence; empty for those that do not."""
    if "plus" not in name and "alpha" not in name:
        return ""
    return (
        f" The rules of {name} depend little on the weights, so another network may have much the same map: compare "
        "with composite=epsilon, with vanilla-gradient, or with randomised weights."
    )


def declared(trace: Trace) -> str:
    """What was done where no rule is published, or none was met, as one more sentence; empty if all is as published."""
    names = ", ".join(sorted(trace.tape.declared))
    if not isinstance(trace.rules, Backprop):
        return f" Of products of two signals ({names}) half goes to each." if names else ""
    if names:
        how = ", times the activation's own slope" if trace.rules.kind == "guided" else ""
        return f" No rule is published for {names}: here what is positive is handed on{how}."
    return "" if rectified(trace.tape) else " No rectifier was met in the network, so this is the plain gradient."


def conservation(case: Case, flow: Flow) -> tuple[Figure, str]:
    """What layers absorb, as bars and in words."""
    rows = [row for row in flow.rows if row.leak or len(flow.rows) < 2]
    bars = {"comes to it": [float(row.came[0]) for row in rows], "absorbs": [row.leak for row in rows]}
    figure = Figure("relevance per layer", "bar", [row.layer for row in rows], bars, "layer", case.target.value)
    worst = max(flow.rows, key=lambda row: abs(row.leak), default=None)
    told = f"{flow.total:.4g} of {flow.start:.4g} comes to the input ({flow.kept:.1%})"
    if worst is None or not flow.start or abs(worst.leak) < 0.01 * abs(flow.start):
        return figure, told + "."
    share = worst.leak / flow.start
    return figure, f"{told}; biases and constants absorb the rest, the largest part ({share:.1%}) in {worst.layer}."
