"""Where the gallery lies in the window, and how commands find it."""

from __future__ import annotations

import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from seglens.app.napari import below
from seglens.app.napari.gallery import texts
from seglens.app.napari.links import dock_around, end_with_dock
from seglens.app.napari.viewer_session import ViewerSession, plain, session_of
from seglens.core.places import recall, remember

if TYPE_CHECKING:
    from seglens.app.napari.gallery.widget import PrototypeGallery

_GALLERIES: weakref.WeakKeyDictionary[ViewerSession, PrototypeGallery] = weakref.WeakKeyDictionary()
_PLACED = ("settings", "gallery-placed")


def register(session: ViewerSession, gallery: PrototypeGallery) -> None:
    """Make a gallery the one that commands of its viewer act on."""
    from seglens.app.napari import commands

    _GALLERIES[session] = gallery
    gallery.destroyed.connect(partial(_forget, session, weakref.ref(gallery)))
    commands.offer_shortcuts()


def _forget(session: ViewerSession, gone: weakref.ref[PrototypeGallery], *_: object) -> None:
    # one that was opened meanwhile stays
    if _GALLERIES.get(session) in (gone(), None):
        _GALLERIES.pop(session, None)


def gallery_of(viewer: Any, *, make: bool = True) -> PrototypeGallery | None:
    """The gallery of a viewer, opened if it is not yet."""
    session = session_of(viewer)
    if make and session not in _GALLERIES and hasattr(plain(viewer), "window"):
        plain(viewer).window.add_plugin_dock_widget("seglens", texts.TITLE)
    return _GALLERIES.get(session)


def choose_model(session: ViewerSession, source: str) -> bool:
    """Load a model in the SegLens dock, opened if it is not yet; says whether there is one."""
    from seglens.app.napari import commands

    viewer = session.viewer
    dock = None if viewer is None else commands.dock_of(viewer)
    if dock is not None:
        dock.jobs.choose_model(source)
    return dock is not None


def go_below(gallery: PrototypeGallery) -> None:
    """Put a dock that was opened for the first time below the picture; where a person moved it, it stays."""
    holder = dock_around(gallery)
    if holder is None or holder.property("seglens placed"):
        return
    holder.setProperty("seglens placed", True)
    end_with_dock(gallery)
    # napari itself remembers where a person moved it, but puts every widget to the right the first time
    with suppress(KeyError):
        if recall(*_PLACED) and not below.lies_there(holder):
            return
    remember(*_PLACED, True)
    below.settle(holder, gallery.HEIGHT)
