"""A large region asked part by part, where a record of the whole network does not fit into the memory that is allowed.

Relevance and DeepLift's multipliers are linear in what goes in at the end, so what comes back of the parts adds up.
Guided backpropagation cuts off what is negative on the way, and is no such sum.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seglens.core.boxes import Box
from seglens.engine import fast
from seglens.engine.appetite import GUESS, measured, picture
from seglens.engine.gradients import guarded
from seglens.engine.pieces import Pieces
from seglens.engine.rules.cells import Memory
from seglens.engine.rules.rescale import Rescale, pair
from seglens.engine.rules.tape import Rules, Tape
from seglens.engine.rules.trace import Flow, Row, Trace
from seglens.models.device import room
from seglens.models.tiled import TiledModel

if TYPE_CHECKING:
    from seglens.engine.case import Case

SHARE = 0.9  # of the memory that is allowed; a record is nearly all that a pass takes
GAPS = 0.75  # of the same: freed memory that one part leaves to the next, as giving it back and forth costs time
PAIRED = 0.7  # instead of SHARE for DeepLift's two records, which leave more gaps

Part = tuple[Box, Box] | tuple[None, None]


def summed(
    case: Case, rules: Rules, baseline: Tensor | None = None, *, rows: bool = False
) -> tuple[Flow, Trace, float]:
    """What comes back to the input, of all parts together.

    Args:
        case: the question.
        rules: of relevance, or DeepLift's.
        baseline: what DeepLift compares with (1, C, *space).
        rows: report layer by layer.

    Returns:
        The flow; the record of the last part; the target's number on the baseline, 0 without one.

    Raises:
        NoRule, OutOfMemory, Cancelled: as :class:`Trace`.
    """
    start, flow, trace, boxes = 0.0, None, None, parts(case, rules)
    for done, (part, box) in enumerate(boxes):
        trace = None  # a part does not fit beside the record of the one before it
        if len(boxes) > 1:
            # nor well into the gaps of a pass of the whole image; into those of other parts it mostly does
            fast.give_back((GAPS if done else fast.SPARE) * room(case.x.device, case.run))
            case.run.progress(done, len(boxes), "parts of the region")
        asked = case if part is None else case.about(case.target.part(part))
        trace = Trace(asked, rules, box=box)
        if baseline is not None:
            start += trace.compare(baseline)
        came = trace.back(rows=rows)
        flow = came if flow is None else _added(flow, came)
    if flow is None or trace is None:
        raise TypeError("a region has at least one part")
    return flow, trace, start


def parts(case: Case, rules: Rules) -> list[Part]:
    """Boxes of the region, and the crop that each sees; ``None`` of both where all fits, or cannot be helped."""
    pixels, memory = prod(case.shape), room(case.x.device, case.run)
    alone: list[Part] = [(None, None)]
    if case.run.plain or isinstance(case.model, TiledModel) or pixels * GUESS <= memory:
        return alone
    most = (PAIRED if isinstance(rules, Rescale) else SHARE) * memory / _bytes(case, rules)
    if pixels <= most:
        return alone
    target = case.target
    field = prod(s.stop - s.start for s in case.cheap_field)
    if target.live or target.value == "dice" or field <= most or case.evaluator.reach is None:
        return alone
    found = Pieces(target, case.shape, case.evaluator.reach, case.model.spec.divisor).fitting(most)
    if len(found) < 2:
        return alone
    case.run.engine["parts"] = {"parts": len(found), "share": round(sum(p.pixels for p in found) / pixels, 3)}
    return [(piece.part, piece.crop) for piece in found]


def _bytes(case: Case, rules: Rules) -> float:
    """Bytes per pixel that recording and going back take, measured on a small picture."""
    told = tuple(value for value in vars(rules).values() if not isinstance(value, Tensor))
    return measured(case.model, (type(rules), *told), lambda: _measure(case, rules))


def _measure(case: Case, rules: Rules) -> float:
    x, memory = picture(case.model), Memory()
    with guarded(case.model), fast.Peak() as peak, torch.no_grad():
        tape = Tape(rules, case.run)
        out = tape.record(case.model.logits, fast.arranged(x))
        if isinstance(rules, Rescale):
            beside = Tape(rules, case.run)
            beside.record(case.model.logits, fast.arranged(x))
            pair(tape, beside)
            case.run.cost.forwards += 1
        if tape.answer is not None:
            memory.add(tape.answer, torch.ones_like(out))
            tape.back(memory)
    case.run.cost.forwards += 1
    return float(peak.bytes / x[0, 0].numel())


def _added(one: Flow, other: Flow) -> Flow:
    rows = {row.layer: Row(row.layer, row.operations, list(row.came), list(row.gave)) for row in one.rows}
    for row in other.rows:
        known = rows.setdefault(row.layer, row)
        if known is not row:
            known.came = [a + b for a, b in zip(known.came, row.came, strict=True)]
            known.gave = [a + b for a, b in zip(known.gave, row.gave, strict=True)]
    values, constants = one.values + other.values, one.constants + other.constants
    return Flow(values, one.start + other.start, tuple(rows.values()), constants)
