"""Commands of the palette and the menus, and shortcuts; all of them do what the dock's buttons do."""

from __future__ import annotations

import weakref
import webbrowser
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import napari
from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.action_manager import action_manager

from seglens.app.napari import notify, words
from seglens.app.napari.gallery import docking
from seglens.app.napari.viewer_session import ViewerSession, is_ours, plain, session_of

if TYPE_CHECKING:
    from seglens.app.napari.dock import SegLensDock
    from seglens.app.napari.gallery.widget import PrototypeGallery

_DOCKS: weakref.WeakKeyDictionary[ViewerSession, SegLensDock] = weakref.WeakKeyDictionary()


def register(session: ViewerSession, dock: SegLensDock) -> None:
    """Make a dock the one that commands of its viewer act on, and offer the shortcuts."""
    _DOCKS[session] = dock
    dock.destroyed.connect(partial(_forget, session, weakref.ref(dock)))
    offer_shortcuts()


def _forget(session: ViewerSession, gone: weakref.ref[SegLensDock], *_: object) -> None:
    # one that was opened meanwhile stays
    if _DOCKS.get(session) in (gone(), None):
        _DOCKS.pop(session, None)


def offer_shortcuts() -> None:
    """Offer the shortcuts of all docks."""
    for name, description in _SHORTCUTS.items():
        key = f"seglens:{name}"
        # registered once a session of napari; napari keeps what the person rebound
        action_manager.register_action(key, _shortcut(name), description, ViewerModel)
        action_manager.bind_shortcut(key, words.KEYS[name])


def dock_of(viewer: Any) -> SegLensDock | None:
    """The dock of a viewer, opened if it is not yet."""
    session = session_of(viewer)
    if session not in _DOCKS and hasattr(plain(viewer), "window"):
        plain(viewer).window.add_plugin_dock_widget("seglens", "SegLens")
    return _DOCKS.get(session)


def segment_view() -> None:
    """Segment what is in view."""
    _do(lambda dock: dock.jobs.segment("view"), tab=0)


def segment_regions() -> None:
    """Segment the boxes around shapes."""
    _do(lambda dock: dock.jobs.segment("regions"), tab=0)


def segment_all() -> None:
    """Segment everything."""
    _do(lambda dock: dock.jobs.segment("all"), tab=0)


def explain_target() -> None:
    """Explain the chosen target."""
    _do(lambda dock: dock.jobs.explain(), tab=1)


def toggle_prediction() -> None:
    """Show or hide predictions."""
    _toggle("prediction")


def toggle_uncertainty() -> None:
    """Show or hide uncertainty."""
    _toggle("uncertainty")


def toggle_heat() -> None:
    """Show or hide the newest saliency map."""
    _toggle("heat")


def toggle_sign() -> None:
    """Paint for or against."""
    _do(lambda dock: dock.jobs.toggle_sign())


def new_target() -> None:
    """A layer to paint a target on."""
    _do(lambda dock: dock.jobs.new_target(), tab=1)


def open_plots() -> None:
    """The plots and tables of the chosen map."""
    _do(lambda dock: dock.open_plots())


def open_projection() -> None:
    """A feature bank as points."""
    viewer = napari.current_viewer()
    if viewer is None:
        notify.info(words.NO_VIEWER)
        return
    # matplotlib takes a moment to import
    from seglens.app.napari.projection.dock import open_in

    open_in(viewer)


def train_model() -> None:
    """The dock that trains a model."""
    viewer = napari.current_viewer()
    if viewer is None:
        notify.info(words.NO_VIEWER)
        return
    from seglens.app.napari.training.dock import open_in

    open_in(viewer)


def add_to_gallery() -> None:
    """What is under the cursor: the painted region, or the object."""
    _in_gallery(_add_under_cursor)


def gallery_undo() -> None:
    """Take the last edit of the gallery back."""
    _in_gallery(lambda gallery: gallery.act("undo"))


def gallery_redo() -> None:
    """Do the last edit of the gallery again."""
    _in_gallery(lambda gallery: gallery.act("redo"))


def why_pixel() -> None:
    """Clicks ask which prototypes made a pixel."""
    _in_gallery(lambda gallery: gallery.clicks.set_active(True))


def copy_as_cli() -> None:
    """The run of the selected layer as a command."""
    _do(lambda dock: dock.copy("cli"))


def copy_as_python() -> None:
    """The run of the selected layer as a script."""
    _do(lambda dock: dock.copy("python"))


def open_docs() -> None:
    """The documentation."""
    webbrowser.open(words.DOCS)


def open_preferences() -> None:
    """napari's preferences; SegLens has a page of its own there."""
    viewer = napari.current_viewer()
    if viewer is not None:
        for action in viewer.window.file_menu.actions():
            if action.text().replace("&", "").startswith("Preferences"):
                action.trigger()


def _do(what: Callable[[SegLensDock], object], *, tab: int | None = None) -> None:
    viewer = napari.current_viewer()
    dock = None if viewer is None else dock_of(viewer)
    if dock is None:
        notify.info(words.NO_VIEWER)
        return
    if tab is not None:
        dock.tabs.setCurrentIndex(tab)
    what(dock)


def _in_gallery(what: Callable[[PrototypeGallery], object]) -> None:
    viewer = napari.current_viewer()
    gallery = None if viewer is None else docking.gallery_of(viewer)
    if gallery is None:
        notify.info(words.NO_VIEWER)
    else:
        what(gallery)


def _add_under_cursor(gallery: PrototypeGallery) -> None:
    viewer = gallery.session.viewer
    if viewer is not None:
        gallery.adder.under(tuple(float(n) for n in viewer.cursor.position))


def _toggle(role: str) -> None:
    viewer = napari.current_viewer()
    if viewer is None:
        notify.info(words.NO_VIEWER)
    else:
        toggle(viewer, role)


def toggle(viewer: Any, role: str) -> None:
    """Hide what SegLens made in this role, or show the newest."""
    layers: list[Layer] = [x for x in viewer.layers if is_ours(x, role)]
    if not layers:
        viewer.status = f"There is no {words.ROLES[role]} yet."
    elif any(x.visible for x in layers):
        for layer in layers:
            layer.visible = False
    else:
        layers[-1].visible = True


_SHORTCUTS = {
    "segment_view": "SegLens: segment what is in view",
    "segment_all": "SegLens: segment everything",
    "explain_target": "SegLens: explain the target",
    "toggle_sign": "SegLens: paint for or against",
    "toggle_prediction": "SegLens: show or hide the prediction",
    "toggle_uncertainty": "SegLens: show or hide the uncertainty",
    "toggle_heat": "SegLens: show or hide the saliency map",
    "add_to_gallery": "SegLens: add what is under the cursor to the prototype gallery",
    "gallery_undo": "SegLens: take the last edit of the prototype gallery back",
    "gallery_redo": "SegLens: do the last edit of the prototype gallery again",
}
_ACTS: dict[str, Callable[[SegLensDock], None]] = {
    "segment_view": lambda dock: dock.jobs.segment("view"),
    "segment_all": lambda dock: dock.jobs.segment("all"),
    "explain_target": lambda dock: dock.jobs.explain(),
    "toggle_sign": lambda dock: dock.jobs.toggle_sign(),
}

_GALLERY_ACTS: dict[str, Callable[[PrototypeGallery], None]] = {
    "add_to_gallery": _add_under_cursor,
    "gallery_undo": lambda gallery: gallery.act("undo"),
    "gallery_redo": lambda gallery: gallery.act("redo"),
}


def _shortcut(name: str) -> Callable[[ViewerModel], None]:
    # a shortcut acts on the viewer that has the focus, which is not always the newest one
    def act(viewer: ViewerModel) -> None:
        if name in _GALLERY_ACTS:
            if (gallery := docking.gallery_of(viewer)) is not None:
                _GALLERY_ACTS[name](gallery)
        elif name not in _ACTS:
            toggle(viewer, name.removeprefix("toggle_"))
        elif (dock := dock_of(viewer)) is not None:
            _ACTS[name](dock)

    # napari tells commands apart by their name
    act.__name__ = f"seglens_{name}"
    return act
