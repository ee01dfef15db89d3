"""One piece of work as it runs: progress, cancel, seed, cost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from seglens.core.errors import Cancelled

Progress = Callable[[int, int, str], None]


@dataclass
class Cost:
    """What a run has spent, in samples sent through the model."""

    forwards: int = 0
    backwards: int = 0


@dataclass
class Run:
    """The only way the engine talks to whoever waits: no print, no GUI, no progress bar.

    Args:
        seed: seed of every random draw; kept in the record.
        batch: samples in a batch; ``None`` lets the engine choose.
        on_progress: called with (done, total, text) from the thread that works.
        on_note: called with a sentence worth telling the person (a smaller tile was used, …).
    """

    seed: int = 0
    batch: int | None = None
    on_progress: Progress | None = None
    on_note: Callable[[str], None] | None = None
    cost: Cost = field(default_factory=Cost)
    notes: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def cancel(self) -> None:
        """Ask the work to stop; safe from any thread."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._stop.is_set()

    def check(self) -> None:
        """Stop here if asked to; called at least once a batch or tile.

        Raises:
            Cancelled: somebody called :meth:`cancel`.
        """
        if self._stop.is_set():
            raise Cancelled()

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Report progress, then :meth:`check`."""
        if self.on_progress is not None:
            self.on_progress(done, total, text)
        self.check()

    def note(self, sentence: str) -> None:
        """Tell the person something that does not stop the work; said once."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            if self.on_note is not None:
                self.on_note(sentence)
