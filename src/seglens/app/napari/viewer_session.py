"""What SegLens knows about one viewer: what was chosen, what runs, what came out.

Panels listen to the evented parts and never to each other. State of a layer is kept under its ``unique_id``,
so that renaming changes nothing; the viewer itself is held weakly, so that closing it frees everything.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Literal

from napari.components import ViewerModel
from napari.layers import Layer
from psygnal import Signal, SignalGroupDescriptor

from seglens.core.explanation import Figure, Table
from seglens.core.method import Method
from seglens.models.spec import ModelSpec

Scope = Literal["view", "regions", "slice", "all"]
Level = Literal["note", "warning", "error"]
MARK = "seglens"  # key in layer.metadata


class State(Enum):
    """What the one button does next."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


@dataclass(frozen=True)
class Message:
    """A sentence or two above the footer; ``action`` names a button on it, ``asked`` tells that a question is meant."""

    what: str
    fix: str = ""
    level: Level = "note"
    action: str = ""
    asked: bool = False


@dataclass(frozen=True)
class ZooEntry:
    """A model that can be chosen without opening a file."""

    name: str
    path: str
    spec: ModelSpec


@dataclass
class Question:
    """What the person asks, on both tabs."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    layer_id: str = ""
    scope: Scope = "slice"
    labels: bool = True
    probabilities: bool = False
    uncertainty: bool = True
    tile: int | None = None
    halo: int | None = None
    region: str = "predicted"
    of_class: str | None = None
    border_of: str = "predicted"
    border_width: int = 2
    value: str = "logit"
    reduction: str = "mean"
    target_id: str = ""
    spot: tuple[float, ...] | None = None
    method: str = ""
    annotation_id: str = ""
    bank: str = ""


@dataclass
class Status:
    """What runs now."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    state: State = State.IDLE
    title: str = ""
    text: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    estimate: str = ""
    message: Message | None = None


@dataclass
class Engine:
    """What the engine told after it was loaded."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    ready: bool = False
    device: str = ""
    device_name: str = ""
    device_why: str = ""
    zoo: tuple[ZooEntry, ...] = ()
    methods: tuple[type[Method], ...] = ()


@dataclass
class Model:
    """The chosen model."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()
    source: str = ""
    loading: bool = False
    loaded: Any = None
    spec: ModelSpec | None = None
    layers: tuple[str, ...] = ()
    depths: tuple[str, ...] = ()
    chosen_layer: str = ""
    untrusted: str = ""
    suggested: bool = False


@dataclass(eq=False)
class Made:
    """A run that made layers: enough to copy it and to run it again, and what it told beside them.

    Args:
        record: how to run it again; empty for an answer that was stopped early.
        image, region, annotation: what was asked about.
        title, text: what was asked, and the answer in words.
        tables, figures: what the answer holds beside its layers.
        frame, source_id: where the image that was explained lies in its layer.
        layer_ids: the layers that it made.
    """

    record: dict[str, Any]
    image: Any = None
    region: Any = None
    annotation: Any = None
    title: str = ""
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    frame: Any = None
    source_id: str = ""
    layer_ids: list[str] = field(default_factory=list)


class ViewerSession:
    """One per viewer; see :func:`session_of`."""

    made_changed = Signal()
    axes_changed = Signal()
    shown_changed = Signal()
    values_changed = Signal()
    looked_at = Signal(dict)  # a row of a table

    def __init__(self, viewer: ViewerModel) -> None:
        """Start empty and follow the layers of a viewer."""
        self._viewer = weakref.ref(viewer)
        self.question = Question()
        self.status = Status()
        self.engine = Engine()
        self.model = Model()
        self.axes: dict[str, str] = {}
        self.channels: dict[str, tuple[int, ...]] = {}
        self.made: dict[str, Made] = {}
        self.shown: Made | None = None
        self.values: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()  # of the model: one work at a time
        viewer.layers.events.removed.connect(self._forget)
        self.question.events.connect(self.asked_anew)
        self.values_changed.connect(self.asked_anew)

    @property
    def viewer(self) -> ViewerModel | None:
        """The viewer, as long as it lives."""
        return self._viewer()

    def layer(self, unique_id: str) -> Layer | None:
        """A layer by its id; ``None`` if it is no longer in the viewer."""
        viewer = self.viewer
        if viewer is None or not unique_id:
            return None
        return next((layer for layer in viewer.layers if str(layer.unique_id) == unique_id), None)

    @property
    def image_layer(self) -> Layer | None:
        """The image that is asked about."""
        return self.layer(self.question.layer_id)

    def keep(self, made: Made, layers: list[Layer]) -> None:
        """Remember the run that made some layers."""
        for layer in layers:
            made.layer_ids.append(layer_id(layer))
            self.made[layer_id(layer)] = made
            layer.metadata[MARK] = {**layer.metadata.get(MARK, {}), "record": made.record}
        self.made_changed.emit()

    def show(self, made: Made | None) -> None:
        """Make an answer the one whose tables and figures are looked at."""
        if made is not self.shown:
            self.shown = made
            self.shown_changed.emit()

    def set_axes(self, layer: Layer, axes: str) -> None:
        """Name the axes of a layer."""
        self.axes[layer_id(layer)] = axes
        self.axes_changed.emit()

    def say(self, what: str, fix: str = "", level: Level = "note", action: str = "", *, asked: bool = False) -> None:
        """Show a sentence or two above the footer; what is wrong with a question goes when that is ``asked`` anew."""
        self.status.message = Message(what, fix, level, action, asked) if what else None

    def asked_anew(self, _event: object = None) -> None:
        """Take away what was wrong with the question as it was."""
        message = self.status.message
        if message is not None and message.asked:
            self.say("")

    def _forget(self, event: Any) -> None:
        gone = layer_id(event.value)
        self.axes.pop(gone, None)
        self.channels.pop(gone, None)
        made = self.made.pop(gone, None)
        if made is not None:
            self.made_changed.emit()
        # an answer lives as long as one of its layers
        if made is not None and made is self.shown and not any(key in self.made for key in made.layer_ids):
            self.show(None)


def layer_id(layer: Layer) -> str:
    """The id under which state of a layer is kept."""
    return str(layer.unique_id)


def is_ours(layer: Layer, role: str = "") -> bool:
    """Whether SegLens made a layer; ``role`` is ``prediction``, ``uncertainty``, ``heat``, ``target`` …"""
    mark = layer.metadata.get(MARK)
    return isinstance(mark, dict) and (not role or mark.get("role") == role)


def plain(viewer: Any) -> ViewerModel:
    """The viewer behind the proxy that napari hands to plugins."""
    return getattr(viewer, "__wrapped__", viewer)


_SESSIONS: weakref.WeakKeyDictionary[ViewerModel, ViewerSession] = weakref.WeakKeyDictionary()


def session_of(viewer: Any) -> ViewerSession:
    """The one session of a viewer."""
    real = plain(viewer)
    if real not in _SESSIONS:
        _SESSIONS[real] = ViewerSession(real)
    return _SESSIONS[real]
