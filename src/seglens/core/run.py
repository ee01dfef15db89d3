"""One piece of work as it runs: progress, cancel, seed, cost, and how the engine may save work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from seglens.core.errors import Cancelled

if TYPE_CHECKING:
    from seglens.core.explanation import Explanation

Progress = Callable[[int, int, str], None]
Precision = Literal["full", "bf16", "fp16"]

PAUSE = 0.5  # seconds between two partial answers


@dataclass
class Cost:
    """What a run has spent.

    Args:
        forwards, backwards: samples sent through the model, whatever their size.
        plain: forwards that a straight loop over the whole image would have taken.
        images: the forwards by their size, in units of one forward of the whole image.
    """

    forwards: int = 0
    backwards: int = 0
    plain: int = 0
    images: float = 0.0


@dataclass
class Run:
    """The only way the engine talks to whoever waits: no print, no GUI, no progress bar.

    Args:
        seed: seed of every random draw; kept in the record.
        batch: samples in a batch; ``None`` lets the engine choose.
        on_progress: called with (done, total, text) from the thread that works.
        on_note: called with a sentence worth telling the person (a smaller tile was used, …).
        on_partial: called with the answer so far, at most twice a second, while an anytime method works.
        memory: bytes that perturbed copies and their activations may take; ``None``: 1 GiB, and on a GPU half of
            what is free there.
        precision: ``bf16`` and ``fp16`` are previews: faster, and logits move; the error is measured and recorded.
        plain: take no short cut: the straight loop over whole images, to compare with.
        engine: what the engine did to save work; kept in the record.
    """

    seed: int = 0
    batch: int | None = None
    on_progress: Progress | None = None
    on_note: Callable[[str], None] | None = None
    on_partial: Callable[[Explanation], None] | None = None
    memory: int | None = None
    precision: Precision = "full"
    plain: bool = False
    engine: dict[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    notes: list[str] = field(default_factory=list)
    _rooms: dict[str, int] = field(default_factory=dict, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _shown: float = field(default_factory=time.monotonic, repr=False)

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

    def room(self, device: str, free: Callable[[], int]) -> int:
        """Bytes that copies may take on a device: what was asked for, else what ``free`` tells when first asked."""
        if self.memory is not None:
            return self.memory
        if device not in self._rooms:
            self._rooms[device] = free()
        return self._rooms[device]

    def note(self, sentence: str) -> None:
        """Tell the person something that does not stop the work; said once."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            if self.on_note is not None:
                self.on_note(sentence)

    def partial(self, answer: Callable[[], Explanation]) -> None:
        """Show the answer so far; made only if somebody looks and the last one is long enough ago."""
        if self.on_partial is not None and time.monotonic() - self._shown > PAUSE:
            self.on_partial(answer())
            self._shown = time.monotonic()
