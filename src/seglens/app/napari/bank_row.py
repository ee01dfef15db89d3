"""Which feature bank a method looks examples up in: open one, or build one from a folder of images."""

# mypy: allow-subclassing-any
from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QPushButton, QWidget

from seglens.app.napari import asking, look, settings, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import ViewerSession
from seglens.core.errors import SegLensError


@dataclass(frozen=True)
class BankWish:
    """A bank to build.

    Args:
        images: a folder.
        masks: a folder of true masks; empty for none.
        kind: ``object``, ``patch`` or ``pixel``.
        layer: its name; empty for the usual one.
        group: ``file`` or ``folder``.
        out: folder of the bank.
    """

    images: str
    masks: str
    kind: str
    layer: str
    group: str
    out: str


class BankRow(QWidget):
    """Seen only while the chosen method needs a bank.

    Args:
        session: what is chosen.
    """

    shown = Signal()
    wanted = Signal(object)  # a bank to build

    def __init__(self, session: ViewerSession) -> None:
        """Follow the method and the model."""
        super().__init__()
        self._session = session
        self.name = look.text(words.BANK_NONE, name="bank")
        self.name.setToolTip(words.BANK_HINT)
        self.open = _button(words.BANK_OPEN, words.BANK_HINT, "open bank")
        self.build = _button(words.BANK_BUILD, words.BANK_BUILD_HINT, "build bank")
        self.build.setCheckable(True)
        self.told = look.text(words.BANK_EMPTY, muted=True)
        self.builder = Builder(session)
        self.form = QFormLayout(self)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setVerticalSpacing(look.GAP)
        self.form.addRow(words.BANK, self.name)
        self.form.addRow("", look.row(self.open, self.build, gap=4))
        self.form.addRow(self.told)
        self.form.addRow(self.builder)
        self.builder.hide()
        self.open.clicked.connect(self._ask)
        self.build.toggled.connect(self.builder.setVisible)
        self.builder.wanted.connect(self.wanted)
        self.builder.wanted.connect(lambda _: self.build.setChecked(False))
        question, model = session.question, session.model
        link(self, self.refresh, question.events.method, question.events.bank, model.events.spec, model.events.loaded)
        link(self, self.refresh, session.engine.events.ready)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show the bank and what it holds, or how to get one."""
        wanted = asking.needs_bank(self._session)
        self.setVisible(wanted)
        self.shown.emit()
        if wanted:
            folder = self._session.question.bank
            self.name.setText(look.breakable(Path(folder).name) if folder else words.BANK_NONE)
            self.name.setToolTip(folder or words.BANK_HINT)
            self.told.setText(about(folder, self._session) if folder else words.BANK_EMPTY)

    def _ask(self) -> None:
        start = str(settings.user_folder("banks"))
        folder = QFileDialog.getExistingDirectory(self, words.BANK, start)
        if folder:
            self._session.question.bank = folder


class Builder(QWidget):
    """What a new bank is made of.

    Args:
        session: model and layers.
    """

    wanted = Signal(object)

    def __init__(self, session: ViewerSession) -> None:
        """Nothing is chosen."""
        super().__init__()
        self._session = session
        self.images, self.masks = "", ""
        self.images_button = _button(words.BANK_CHOOSE, words.BANK_FOLDER_HINT, "bank images")
        self.masks_button = _button(words.BANK_CHOOSE, words.BANK_MASKS_HINT, "bank masks")
        self.images_button.clicked.connect(lambda: self._choose("images"))
        self.masks_button.clicked.connect(lambda: self._choose("masks"))
        self.kind = _choice(words.BANK_KINDS, "bank kind")
        self.group = _choice(words.BANK_GROUPS, "bank groups")
        self.layer = look.combo(words.BANK_LAYER_HINT)
        self.layer.setObjectName("bank layer")
        self.start = _button(words.BANK_START, words.BANK_BUILD_HINT, "start bank")
        self.start.clicked.connect(self._start)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.addRow(words.BANK_FOLDER, self.images_button)
        form.addRow(words.BANK_MASKS, self.masks_button)
        form.addRow(words.BANK_KIND, self.kind)
        form.addRow(words.BANK_LAYER, self.layer)
        form.addRow(words.BANK_GROUP, self.group)
        form.addRow(self.start)
        look.calm(self)
        link(self, self.refresh, session.model.events.layers, session.model.events.loaded, session.status.events.state)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Offer the layers of the model; it can start once there is a folder."""
        items = [(words.BANK_LAYER_AUTO, ""), *((name, name) for name in self._session.model.layers)]
        look.fill(self.layer, items, self.layer.currentData())
        idle = self._session.status.state.value == "idle"
        self.start.setEnabled(bool(self.images) and self._session.model.loaded is not None and idle)
        for button, folder in ((self.images_button, self.images), (self.masks_button, self.masks)):
            button.setText(Path(folder).name if folder else words.BANK_CHOOSE)

    def set_folder(self, which: str, folder: str) -> None:
        """Take a folder of ``images`` or ``masks``; an empty one takes the choice back."""
        setattr(self, which, folder)
        self.refresh()

    def wish(self) -> BankWish:
        """What is chosen; the bank goes into the user's folder, named after what it is of."""
        spec = self._session.model.spec
        layer, kind = str(self.layer.currentData() or ""), str(self.kind.currentData())
        name = "-".join(x for x in (Path(self.images).name, spec.name if spec is not None else "", layer, kind) if x)
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
        out = settings.user_folder("banks") / f"{safe}.bank"
        return BankWish(self.images, self.masks, kind, layer, str(self.group.currentData()), str(out))

    def _choose(self, which: str) -> None:
        folder = QFileDialog.getExistingDirectory(self, words.BANK_FOLDER, str(Path.home()))
        if folder or which == "masks":
            self.set_folder(which, folder)

    def _start(self) -> None:
        self.wanted.emit(self.wish())


def about(folder: str, session: ViewerSession) -> str:
    """What a bank holds, or what is wrong with it."""
    from seglens.engine.features import FeatureBank

    try:
        bank = FeatureBank.open(folder)
    except SegLensError as error:
        return f"{error.what} {error.fix}"
    with closing(bank):
        info, spec = bank.info, session.model.spec
        if spec is not None and spec.sha256 and info.model_sha256 not in ("", spec.sha256):
            return words.BANK_OTHER.format(wanted=info.model, have=spec.name)
        return words.BANK_TOLD.format(count=len(bank), kind=info.kind, images=len(bank.images()), layer=info.layer)


def _button(label: str, hint: str, name: str) -> QPushButton:
    button = QPushButton(label)
    button.setToolTip(hint)
    button.setObjectName(name)
    return button


def _choice(table: dict[str, tuple[str, str]], name: str) -> Any:
    box = look.combo()
    box.setObjectName(name)
    for key, (label, hint) in table.items():
        box.addItem(label, key)
        box.setItemData(box.count() - 1, hint, 3)
    return box
