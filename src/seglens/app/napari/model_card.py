"""What a person should know of the model before trusting its lines."""

# mypy: allow-subclassing-any
from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QGridLayout, QLabel, QSizePolicy

from seglens.app.napari import adapt, asking, look, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import ViewerSession
from seglens.core.errors import SegLensError
from seglens.models.spec import ModelSpec


class ModelCard(QFrame):
    """Name, channels, classes with colours, pixel size, licence, fingerprint."""

    def __init__(self, session: ViewerSession) -> None:
        """Follow the model and the image."""
        super().__init__()
        self._session = session
        self.setObjectName("card")
        self.setStyleSheet("QFrame#card { background: rgba(128, 128, 128, 28); border-radius: 4px; }")
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(8, 6, 8, 6)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(3)
        self._grid.setColumnStretch(1, 1)
        model = session.model.events
        link(self, self.refresh, model.loaded, model.loading, model.untrusted)
        link(self, self.refresh, session.question.events.layer_id, session.axes_changed)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show the card, or what the empty place is for."""
        look.clear(self._grid)
        model = self._session.model
        if model.loading:
            self._wide(f"Loading {model.source}…", muted=True)
        elif model.spec is None:
            self._wide(words.MODEL_EMPTY, muted=True)
        else:
            self._show(model.spec)

    def _show(self, spec: ModelSpec) -> None:
        if spec.description:
            self._wide(spec.description, muted=False)
        elif self._session.model.suggested:
            self._wide(words.SUGGESTED.format(channels=", ".join(spec.channels)), muted=True)
        dims = {2: "images", 3: "volumes"}[spec.ndim]
        self._line("Reads", f"{dims} ({spec.axes}) · {', '.join(spec.channels)}")
        self._classes(spec)
        self._pixel_size(spec)
        if spec.licence:
            self._line("Licence", spec.licence)
        if spec.sha256:
            self._line("Fingerprint", spec.sha256[:12], tooltip=f"sha256 {spec.sha256}")

    def _classes(self, spec: ModelSpec) -> None:
        self._caption("Classes")
        holder = look.column(gap=1)
        for kind in spec.classes:
            swatch = QLabel()
            swatch.setPixmap(look.dot_map(kind.color))
            holder.addWidget(look.row(swatch, QLabel(kind.name), None, gap=4))
        self._grid.addLayout(holder, self._grid.rowCount() - 1, 1)

    def _pixel_size(self, spec: ModelSpec) -> None:
        layer = self._session.image_layer
        if spec.pixel_size is None or layer is None:
            return
        try:
            image = adapt.image_of(layer, asking.axes_of(self._session, layer))
        except SegLensError:
            return
        model, here = float(spec.pixel_size[-1]), in_unit(float(image.scale("X")[0]), image.unit, spec.unit)
        if here is None:
            self._line("Pixel size", f"{model:g} {short(spec.unit)} in training; the image does not tell its own")
            return
        if 0.66 <= here / model <= 1.5:
            self._line("Pixel size", words.pixel_fine(here, short(spec.unit)))
            return
        label = self._wide(words.pixel_note(here, model, short(spec.unit)), muted=False)
        look.tone(label, "warning")

    def _caption(self, name: str) -> None:
        caption = look.text(name, muted=True)
        caption.setWordWrap(False)
        caption.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Minimum)
        self._grid.addWidget(caption, self._grid.rowCount(), 0, Qt.AlignmentFlag.AlignTop)

    def _line(self, name: str, value: str, *, tooltip: str = "") -> None:
        self._caption(name)
        label = look.text(value)
        label.setToolTip(tooltip)
        self._grid.addWidget(label, self._grid.rowCount() - 1, 1)

    def _wide(self, sentence: str, *, muted: bool) -> QLabel:
        label = look.text(sentence, muted=muted)
        self._grid.addWidget(label, self._grid.rowCount(), 0, 1, 2)
        return label


_IN_METRES = {"nanometer": 1e-9, "micrometer": 1e-6, "micron": 1e-6, "um": 1e-6, "µm": 1e-6, "nm": 1e-9,
              "millimeter": 1e-3, "mm": 1e-3, "centimeter": 1e-2, "meter": 1.0}  # fmt: skip
_SHORT = {"nanometer": "nm", "micrometer": "µm", "millimeter": "mm"}


def in_unit(size: float, unit: str, wanted: str) -> float | None:
    """A length in another unit; ``None`` if either is no length."""
    if unit not in _IN_METRES or wanted not in _IN_METRES:
        return None
    return round(size * _IN_METRES[unit] / _IN_METRES[wanted], 6)


def short(unit: str) -> str:
    """A unit as people write it."""
    return _SHORT.get(unit, unit)
