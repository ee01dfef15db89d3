"""Work in pieces: several as one run, and steps between which nothing of the work is left on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeVar

from seglens.core.run import Run

T = TypeVar("T")


def stepwise(context: Callable[[], AbstractContextManager[object]], steps: Iterator[T]) -> Iterator[T]:
    """The same steps, each made in a context of its own.

    What a context sets for its thread (inference mode, say) would hold for whoever asks for the steps as well; and if
    nobody asks for the last one it would stay, until the generator is closed in whatever thread drops it.
    """
    end = object()
    while True:
        with context():
            step = next(steps, end)
        if step is end:
            return
        yield step  # type: ignore[misc]


class Turns:
    """A run for pieces of work that take turns.

    What :attr:`run` is told goes on to the whole: progress as a share of all pieces, cancel and cost as they are,
    notes with what stands before those of a piece. Answers on the way are not passed on, because one piece is no answer
    to the whole question.

    Args:
        run: of the whole.
        total: how many pieces there are.
    """

    def __init__(self, run: Run, total: int) -> None:
        """No piece has begun."""
        self._whole, self._total = run, total
        self._name, self._before, self.begun = "", "", 0
        # each piece may say what another has said
        self.run = replace(run, on_progress=self._tell, on_partial=None, notes=[], on_note=self._note)

    def next(self, name: str, before: str = "") -> None:
        """The next piece begins.

        Args:
            name: stands before what it tells of its progress.
            before: stands before its notes.
        """
        self._name, self._before = name, before
        self.run.notes.clear()
        self.begun += 1
        self._whole.progress(self.begun - 1, self._total, name)

    def _note(self, sentence: str) -> None:
        self._whole.note(self._before + sentence)

    def _tell(self, done: int, total: int, text: str) -> None:
        if self._whole.on_progress is not None:
            before = (self.begun - 1) * total
            self._whole.on_progress(before + done, self._total * total, f"{self._name}, {text or 'steps'}")
