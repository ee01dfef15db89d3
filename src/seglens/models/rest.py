"""A network at rest: nobody changes it while a question is asked, so what is found out once holds until the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")

_lock = threading.Lock()


@dataclass(eq=False)
class _Rest:
    """What was in training mode and asked for gradients, how many use the network, and what they have found out."""

    modes: list[nn.Module]
    frozen: list[nn.Parameter]
    users: int = 0
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module) -> _Rest:
        # a frozen TorchScript module has no training flag
        modes = [m for m in module.modules() if getattr(m, "training", False)]
        return cls(modes, [p for p in module.parameters() if p.requires_grad])

    def turn(self, on: bool) -> None:
        for m in self.modes:
            m.training = on
        for p in self.frozen:
            p.requires_grad_(on)


_rests: dict[int, _Rest] = {}  # by the id of the network, which lives as long as it is used


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Eval mode and frozen parameters for all who use it at once; put back after the last."""
    with _lock:
        rest = _rests.get(id(module))
        if rest is None:
            rest = _rests[id(module)] = _Rest.of(module)
            rest.turn(False)
        rest.users += 1
    try:
        yield
    finally:
        with _lock:
            rest.users -= 1
            if rest.users == 0:
                del _rests[id(module)]
                rest.turn(True)


def forget(module: nn.Module) -> None:
    """A new question: weights may have been changed since the last one."""
    rest = _rests.get(id(module))
    if rest is not None:
        rest.known = {}


def remembered(module: nn.Module, what: str, find: Callable[[], T]) -> T:
    """What ``find`` tells about a network; asked for once while it is at rest."""
    rest = _rests.get(id(module))
    if rest is None:
        return find()
    known = rest.known
    if what not in known:
        known[what] = find()
    found: T = known[what]
    return found
