"""How errors reach a person: one plain sentence and the fix, inline; the trace goes to the log."""

from __future__ import annotations

import logging

from napari.utils.notifications import show_info, show_warning

from seglens.app.napari import words
from seglens.app.napari.viewer_session import ViewerSession
from seglens.core.errors import Cancelled, SegLensError

log = logging.getLogger("seglens")


def error(session: ViewerSession, failed: BaseException, *, asked: bool = False) -> None:
    """Say what went wrong above the footer, and as a notification for those who look elsewhere.

    Args:
        session: whose footer.
        failed: what was raised.
        asked: whether it is about the question, so that another question outdates it.
    """
    if isinstance(failed, Cancelled):
        session.say(failed.what)
        return
    if isinstance(failed, SegLensError):
        what, fix = failed.what, failed.fix
    else:
        log.error("unexpected error", exc_info=failed)
        what, fix = words.unexpected(failed)
    session.say(what, fix, "error", asked=asked)
    show_warning(f"{what}\n{fix}")


def note(session: ViewerSession, sentence: str) -> None:
    """Say something worth knowing that stops nothing."""
    session.say(sentence)


def info(sentence: str) -> None:
    """A passing remark."""
    show_info(sentence)
