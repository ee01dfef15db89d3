"""Where the model comes from: the zoo, a recent file, or a file to open."""

# mypy: allow-subclassing-any
from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from seglens.app.napari import adapt, asking, look, settings, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import ViewerSession, ZooEntry
from seglens.core.errors import SegLensError

FILTER = "Models (*.pt *.pt2 *.pth *.ckpt *.safetensors *.zip *.py *.json *.yaml);;All files (*)"


class ModelSource(QWidget):
    """A combo box; ``wanted`` tells what to load and whether it was merely suggested."""

    wanted = Signal(str, bool)

    def __init__(self, session: ViewerSession) -> None:
        """Filled when the engine has told what there is."""
        super().__init__()
        self._session = session
        self._touched = False
        self.box = look.combo("The model that draws the lines")
        self.box.setObjectName("model")
        self.box.activated.connect(self._chosen)
        look.column(self).addWidget(self.box)
        link(self, self.refresh, session.engine.events.ready, session.model.events.source)
        link(self, self.suggest, session.engine.events.ready, session.question.events.layer_id)
        self.refresh()
        self.suggest()

    def refresh(self, _event: object = None) -> None:
        """List what can be chosen."""
        engine, source = self._session.engine, self._session.model.source
        items: list[tuple[str, str]] = [(words.MODEL_PLACEHOLDER, "")]
        items += [(entry.name, entry.name) for entry in engine.zoo]
        known = {data for _, data in items}
        recent = [p for p in dict.fromkeys([source, *settings.recent_models()]) if p and p not in known]
        items += [(Path(p).name, p) for p in recent]
        items += [(words.MODEL_FILE, "file"), (words.MODEL_FOLDER, "folder")]
        look.fill(self.box, items, source)
        for index in range(self.box.count()):
            self.box.setItemData(index, self.box.itemData(index), 3)  # the path as tooltip (Qt.ToolTipRole)

    def suggest(self, _event: object = None) -> None:
        """Choose a shipped model that reads this image, as long as the person chose none."""
        session = self._session
        layer = session.image_layer
        if self._touched or layer is None or not session.engine.ready or not settings.get("interface.suggest_model"):
            return
        model = session.model
        if model.source and not model.suggested:
            return
        try:
            axes = asking.axes_of(session, layer)
        except SegLensError:
            return
        named = sample_model(adapt.source_of(layer))
        have = int(adapt.pixels(layer).shape[axes.index("C")]) if "C" in axes else 1
        zoo = session.engine.zoo
        entry = next((e for e in zoo if e.name == named), None) or best(zoo, axes, have)
        if entry is not None and entry.name != model.source:
            self.wanted.emit(entry.name, True)

    def _chosen(self, index: int) -> None:
        choice = str(self.box.itemData(index) or "")
        if choice == "file":
            choice, _ = QFileDialog.getOpenFileName(self, "Open a model", "", FILTER)
        elif choice == "folder":
            choice = QFileDialog.getExistingDirectory(self, "Open a model folder")
        if choice:
            self._touched = True
            self.wanted.emit(choice, False)
        else:
            self.refresh()


def best(zoo: tuple[ZooEntry, ...], axes: str, channels: int) -> ZooEntry | None:
    """The shipped model that reads as many channels as the image has, or a single one."""
    # a model that was made to be wrong is never suggested by itself
    fits = [e for e in zoo if set(e.spec.axes) <= set(axes) and not e.name.startswith("shortcut")]
    colours = min(channels, 3)
    return next((e for e in fits if len(e.spec.channels) == colours), None) or next(
        (e for e in fits if len(e.spec.channels) == 1), None
    )


def sample_model(source: str) -> str:
    """The model that suits a sample; empty for everything else."""
    from seglens.sample_data import SAMPLES

    if not source.startswith("sample:"):
        return ""
    name = source.removeprefix("sample:")
    # a further picture of a sample is named after it: shortcut-moved
    return next((info.model for key, info in SAMPLES.items() if name == key or name.startswith(f"{key}-")), "")
