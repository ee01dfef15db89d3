"""Which operations rectify: ReLU under its names or written out, and activations of other kinds that are written out.

A mask does not tell where it comes from, so it is compared with the signs of what it keeps: where the two are the same
everywhere, and something is cut off, the operation rectifies, whatever it is called.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seglens.engine.rules.cells import Cell
from seglens.engine.rules.moves import CURVES
from seglens.engine.rules.steps import Slot, Step, names
from seglens.engine.rules.tape import Tape

POINTWISE = CURVES | names("add sub rsub mul div neg clone _to_copy maximum minimum where")
WRITTEN_OUT = names("mul where maximum minimum")
FAR = 24  # steps back in which an activation that is written out begins

Root = tuple[Any, ...]


def rectifies(step: Step) -> bool:
    """ReLU under any of its names, with a ceiling or without, or written out with a mask or a maximum."""
    bounds = step.args[1:]
    if step.name in ("hardtanh", "clamp", "clamp_min"):
        return len(bounds) > 0 and _zero(bounds[0])
    if step.name in ("maximum", "fmax"):
        return any(map(_zero, step.args))
    return step.name == "relu" or (step.name == "threshold" and tuple(bounds) == (0, 0)) or _keeps_positive(step)


def written_out(step: Step, tape: Tape) -> Slot | None:
    """Of two factors or choices that are both functions of one signal, pixel by pixel, the signal; else ``None``.

    So are x·sigmoid(x) and the larger of x and 0.1·x; a gate that looks further than its own pixel is none.
    """
    reads = step.reads
    if step.name not in WRITTEN_OUT or len(reads) != 2:
        return None
    places, now = [s.cell for s in reads], len(tape.steps)
    first, second = (_root(tape, place, now) for place in places)
    if first != second or _key(places[0]) == _key(places[1]):  # a square is no activation
        return None
    return next((s for s in reads if _key(s.cell) == first[1:]), reads[0])


def _zero(thing: object) -> bool:
    """A number or constant that is 0."""
    if isinstance(thing, Slot):
        return thing.cell is None and thing.value is not None and not bool(thing.value.any())
    return isinstance(thing, (int, float)) and thing == 0


def _keeps_positive(step: Step) -> bool:
    """Whether what is above zero is kept, and all else is set to zero."""
    x, kept = _kept(step)
    if x is None or kept is None or kept.shape != x.shape or bool(kept.all()):
        return False
    return any(torch.equal(kept, sign.to(kept.dtype)) for sign in (x > 0, x >= 0))


def _kept(step: Step) -> tuple[Tensor | None, Tensor | None]:
    """What a mask looks at, and the mask: true or 1 where the value stays, false or 0 where it becomes zero."""
    match step.name, step.args:
        case "where", (on, x, off) if _zero(off):
            return _signal(x), on.value
        case "where", (on, off, x) if _zero(off):
            return _signal(x), ~on.value
        case ("masked_fill", (x, Slot(value=off), fill)) | ("index_put", (x, [Slot(value=off)], fill)):
            return (_signal(x), ~off) if off is not None and off.dtype == torch.bool and _zero(fill) else (None, None)
        case "mul", (Slot() as a, Slot() as b):
            x, mask = (a, b) if b.cell is None else (b, a)
            return (_signal(x), mask.value) if mask.cell is None else (None, None)
    return None, None


def _signal(thing: object) -> Tensor | None:
    return thing.value if isinstance(thing, Slot) and thing.cell is not None else None


def _root(tape: Tape, cell: Cell | None, before: int) -> Root:
    """What a tensor is a function of, pixel by pixel, and when that was written; a few steps back."""
    written = next((n for n in range(before - 1, max(-1, len(tape.steps) - FAR), -1) if _wrote(tape, n, cell)), -1)
    itself = (written, *_key(cell))
    if written < 0:
        return itself
    step = tape.steps[written]
    assert isinstance(step, Step)
    places = [*(s.cell for s in step.reads), *(s.cell for s in step.answers)]
    if step.name not in POINTWISE or _key(places[-1]) != itself[1:] or len({p.size for p in places if p}) > 1:
        return itself
    read = {_key(s.cell): s.cell for s in step.reads}  # each once: x + x after x + x would be asked a million times
    roots = {_root(tape, one, written) for one in read.values()}
    return roots.pop() if len(roots) == 1 else itself


def _wrote(tape: Tape, number: int, cell: Cell | None) -> bool:
    step = tape.steps[number]
    return isinstance(step, Step) and any(s.cell and cell and s.cell.store == cell.store for s in step.answers)


def _key(cell: Cell | None) -> Root:
    return () if cell is None else (cell.store, cell.offset, cell.size, cell.stride)
