"""Which Labels layer a method gets, where it asks for one."""

# mypy: allow-subclassing-any
from __future__ import annotations

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QWidget

from seglens.app.napari import asking, look, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import ViewerSession, is_ours, layer_id


class LabelsRow(QWidget):
    """Seen only while the chosen method asks for a Labels layer.

    Args:
        session: what is chosen.
    """

    shown = Signal()

    def __init__(self, session: ViewerSession) -> None:
        """Follow the layers and the method."""
        super().__init__()
        self._session = session
        question = session.question
        self.box = look.combo(words.LABELS_HINT)
        self.box.setObjectName("labels layer")
        self.box.activated.connect(lambda i: setattr(question, "annotation_id", self.box.itemData(i)))
        self.empty = look.text(words.LABELS_EMPTY, muted=True)
        self.form = QFormLayout(self)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setVerticalSpacing(look.GAP)
        self.form.addRow("Labels layer", self.box)
        self.form.addRow(self.empty)
        look.calm(self)
        link(self, self.refresh, question.events.method, question.events.layer_id, question.events.annotation_id)
        link(self, self.refresh, session.values_changed, session.engine.events.ready, session.axes_changed)
        viewer = session.viewer
        if viewer is not None:
            link(self, self.refresh, viewer.layers.events.inserted, viewer.layers.events.removed)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """List the layers that fit; a person's own is chosen by itself, a prediction never."""
        wanted = asking.needs_labels(self._session)
        self.setVisible(wanted)
        self.shown.emit()
        if not wanted:
            return
        question = self._session.question
        layers = asking.labels_layers(self._session)
        if question.annotation_id not in [layer_id(x) for x in layers]:
            question.annotation_id = _own(layers)
        items = [(x.name, layer_id(x)) for x in layers]
        look.fill(self.box, [(words.LABELS_NONE, ""), *items], question.annotation_id)
        self.form.setRowVisible(self.empty, not layers)


def _own(layers: list[Labels]) -> str:
    """The id of the person's topmost layer, of those that are seen if any is."""
    mine = [x for x in layers if not is_ours(x)]
    return next((layer_id(x) for x in reversed([x for x in mine if x.visible] or mine)), "")
