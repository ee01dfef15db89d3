"""What has come back to each place in memory: a backward pass that follows views and in-place operations.

A tensor is a view of a piece of memory. Going back through the operations, each one takes what has arrived where it
wrote, and adds its shares where it read. So a view needs no rule, and neither does an operation that works in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from seglens.models.device import fine_sum


@dataclass(slots=True)
class Cell:
    """Where a tensor lies; not to be changed (one that is frozen takes thrice as long to make, and there are many).

    Args:
        store: tells pieces of memory apart.
        size, stride, offset: as of the tensor, in values.
        room: how many values the piece of memory holds.
        dtype, device: as of the tensor.
    """

    store: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    room: int
    dtype: torch.dtype
    device: torch.device
    _whole: bool | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, t: Tensor) -> Cell:
        """The place of a tensor."""
        storage = t.untyped_storage()
        room = storage.nbytes() // t.element_size()
        return cls(storage._cdata, tuple(t.shape), t.stride(), t.storage_offset(), room, t.dtype, t.device)  # type: ignore[arg-type]

    @property
    def whole(self) -> bool:
        """Whether the tensor is all that is in its piece of memory, each value once."""
        if self._whole is None:
            self._whole = prod(self.size) == self.room and _dense(self.size, self.stride)
        return self._whole

    def empty(self) -> Tensor:
        """A tensor of this size and layout, whatever its values."""
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)


class Memory:
    """What has come back so far; nothing is there at first."""

    def __init__(self) -> None:
        """Empty."""
        self._lines: dict[int, Tensor] = {}
        self._own: set[int] = set()  # lines that nobody else holds, and that may be written

    def add(self, cell: Cell, values: Tensor) -> None:
        """Add values of the cell's shape, or of one that stretches to it; they may be shared with others."""
        line = self._lines.get(cell.store)
        if cell.whole:
            laid = values if _alike(values, cell) else cell.empty().copy_(values)
            flat = laid.as_strided((cell.room,), (1,), laid.storage_offset())
            self._lines[cell.store] = flat if line is None else line + flat
            self._own.discard(cell.store)
            return
        line = self._writable(cell)
        if any(n > 1 and s == 0 for n, s in zip(cell.size, cell.stride, strict=True)) or _overlaps(cell):
            where = torch.arange(cell.room, device=line.device).as_strided(cell.size, cell.stride, cell.offset)
            line.index_add_(0, where.flatten(), values.expand(cell.size).flatten())
        else:
            _view(line, cell).add_(values)

    def take(self, cell: Cell) -> Tensor | None:
        """What has come to a cell, which is empty then; ``None`` if nothing has."""
        line = self._lines.get(cell.store)
        if line is None:
            return None
        if cell.whole:
            del self._lines[cell.store]
            return _view(line, cell)
        view = _view(self._writable(cell), cell)
        values = view.clone()
        view.zero_()
        return values

    def peek(self, cell: Cell) -> Tensor | None:
        """What has come to a cell, and stays there; ``None`` if nothing has."""
        line = self._lines.get(cell.store)
        return None if line is None else _view(line, cell)

    def total(self) -> float:
        """The sum of all that is anywhere."""
        return float(sum(fine_sum(line) for line in self._lines.values()))

    def _writable(self, cell: Cell) -> Tensor:
        line = self._lines.get(cell.store)
        if line is None:
            line = torch.zeros(cell.room, dtype=cell.dtype, device=cell.device)
        elif cell.store not in self._own:
            line = line.clone()
        self._lines[cell.store] = line
        self._own.add(cell.store)
        return line


def _view(line: Tensor, cell: Cell) -> Tensor:
    return line.as_strided(cell.size, cell.stride, line.storage_offset() + cell.offset)


def _alike(t: Tensor, cell: Cell) -> bool:
    return (
        tuple(t.shape) == cell.size
        and t.dtype == cell.dtype
        and all(n < 2 or a == b for n, a, b in zip(cell.size, t.stride(), cell.stride, strict=True))
    )


def _dense(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether values lie side by side, each once, in whatever order of the axes."""
    expected = 1
    for step, n in sorted((s, n) for n, s in zip(size, stride, strict=True) if n > 1):
        if step != expected:
            return False
        expected *= n
    return True


def _overlaps(cell: Cell) -> bool:
    """Whether two positions may share a place, as in windows that were unfolded."""
    reach = 0
    for step, n in sorted((s, n) for n, s in zip(cell.size, cell.stride, strict=True) if n > 1):
        if step <= reach:
            return True
        reach += step * (n - 1)
    return False
