"""Galleries as files: made, opened, copied, exported and imported, in a thread that can be stopped."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from seglens.app.napari import settings
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.shelves import BankShelf, GalleryShelf
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.jobs import Emit, Job, Work, alone
from seglens.app.napari.viewer_session import ViewerSession
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.run import Run

ENDING = ".gallery"


class Files(QObject):
    """What the menu of the gallery does.

    Args:
        session: its model.
        state: what is shown.
        retire: closes a gallery that is shown no more.
        parent: the widget; dialogs belong to it.
    """

    working = Signal(object)  # the job that runs now, or None

    def __init__(
        self, session: ViewerSession, state: GalleryState, retire: Callable[[Any], None], parent: QWidget
    ) -> None:
        """Nothing is open."""
        super().__init__(parent)
        self._retire = retire
        self._session, self._state, self._window = session, state, parent
        self.job: Job | None = None

    # -- what is asked for ----------------------------------------------------------------------------------------

    def ask_new(self) -> None:
        """A gallery of the chosen network's prototypes; one that was made before is opened."""
        model = self._session.model
        if model.loaded is None or model.spec is None:
            self._state.say(texts.LOADING if model.loading else texts.NEEDS_DOCK, level="warning")
            return
        path = self._name(f"{_plain(model.spec.name)}{ENDING}")
        if path:
            self.new_of_model(path)

    def ask_blank(self) -> None:
        """An empty gallery for the classes of the chosen model."""
        model = self._session.model
        if model.loaded is None or model.spec is None:
            self._state.say(texts.LOADING if model.loading else texts.NEEDS_DOCK, level="warning")
            return
        path = self._name(f"my {_plain(model.spec.name)}{ENDING}")
        if path:
            self._start(texts.MAKING, partial(_blank, model=model.loaded, folder=path), self.show)

    def ask_bank(self) -> None:
        """Look through a feature bank."""
        path = QFileDialog.getExistingDirectory(self._window, texts.MENU["bank"][0], str(self._home()))
        if path:
            self.open_bank(path)

    def ask_keep_rows(self) -> None:
        """A gallery of the rows of a bank that are selected; of all that are shown if none is."""
        bank, state = self._state.bank, self._state
        if bank is None:
            state.say(texts.ROWS_FIRST, level="warning")
            return
        path = self._name(f"{bank.folder.name.removesuffix('.bank')}{ENDING}")
        if path:
            self.new_of_rows(path)

    def ask_open(self) -> None:
        """A gallery that is there."""
        path = QFileDialog.getExistingDirectory(self._window, texts.MENU["open"][0], str(self._home()))
        if path:
            self.open(path)

    def ask_save(self) -> None:
        """A copy of the whole gallery."""
        gallery = self._gallery()
        path = gallery and self._name(f"copy of {gallery.folder.name}")
        if path:
            self._start(texts.SAVING, partial(_copy, gallery=gallery, folder=path), self._saved)

    def ask_export(self, kind: str) -> None:
        """The gallery as a page (``html``), a table (``table``) or a ``folder``."""
        gallery = self._gallery()
        if gallery is None:
            return
        ending, kinds = {
            "html": (".html", "HTML (*.html)"), "table": (".csv", "CSV (*.csv)"), "folder": ("", "")
        }[kind]  # fmt: skip
        stem = gallery.folder.name.removesuffix(ENDING)
        path, _ = QFileDialog.getSaveFileName(self._window, texts.MENU[kind][0], f"{stem}{ending}", kinds)
        if path:
            path = path if Path(path).suffix or not ending else path + ending
            self._start(texts.SAVING, partial(_export, gallery=gallery, kind=kind, path=path), self._saved)

    def ask_network(self) -> None:
        """The chosen network with the prototypes of the gallery, as a model folder."""
        gallery, model = self._gallery(), self._session.model.loaded
        if gallery is None:
            return
        if model is None or gallery.info.layer:
            self._state.say(texts.NO_NETWORK, level="warning")
            return
        name = f"{_plain(gallery.info.title)} network"
        path, _ = QFileDialog.getSaveFileName(self._window, texts.NAME_FOLDER, str(Path.home() / name))
        if path:
            call = partial(_network, gallery=gallery, model=model, folder=path)
            self._start(texts.SAVING, alone(self._session.lock, call), self._saved)

    def ask_import(self) -> None:
        """A table, or the table of an exported folder, into the open gallery; without one it becomes a new gallery."""
        path, _ = QFileDialog.getOpenFileName(self._window, texts.MENU["import"][0], str(Path.home()), "CSV (*.csv)")
        if path:
            self.import_(path)

    def ask_relocate(self) -> None:
        """Search a folder for images that were moved."""
        gallery = self._gallery()
        if gallery is None:
            return
        if not gallery.missing():
            self._state.say(texts.NONE_MISSING)
            return
        path = QFileDialog.getExistingDirectory(self._window, texts.MENU["relocate"][0], str(Path.home()))
        if path:
            self._start(texts.SEARCHING, partial(_relocate, gallery=gallery, folder=path), self._relocated)

    # -- the same without dialogs ---------------------------------------------------------------------------------

    def open(self, folder: str | Path) -> None:
        """Open a gallery."""
        self._start(texts.OPENING.format(name=Path(folder).name), partial(_open, folder=folder), self.show)

    def new_of_model(self, folder: str | Path) -> None:
        """Make a gallery of the chosen network's prototypes, or open the one that is there."""
        call = partial(_of_model, model=self._session.model.loaded, folder=folder)
        self._start(texts.MAKING, alone(self._session.lock, call), self.show)

    def new_of_rows(self, folder: str | Path) -> None:
        """Make a gallery of rows of the bank that is shown."""
        rows = self._state.selected_rows or self._state.rows
        call = partial(_of_rows, bank=self._state.bank, rows=list(rows), folder=folder)
        self._start(texts.MAKING, call, self.show)

    def open_bank(self, folder: str | Path) -> None:
        """Look through a feature bank."""
        self._start(texts.OPENING.format(name=Path(folder).name), partial(_open_bank, folder=folder), self._bank)

    def import_(self, path: str | Path) -> None:
        """Import a table (a folder's with its pictures and vectors) into the open gallery, or into a new one."""
        file, gallery = Path(path), self._state.gallery
        # the table of an exported folder goes with what lies beside it
        source = file.parent if (file.parent / "gallery.json").is_file() else file
        if gallery is not None:
            self._start(texts.IMPORTING, partial(_import, gallery=gallery, path=source), self._imported)
            return
        folder = self._name(f"{(source if source.is_dir() else file).stem}{ENDING}")
        if folder:
            self._start(texts.IMPORTING, partial(_of_export, source=source, folder=folder), self.show)

    def show_rows(self) -> None:
        """Show the bank's rows that somebody asked for."""
        state = self._state
        if state.bank is not None:
            call = partial(_shelf, bank=state.bank, rows=state.rows, title=state.rows_title)
            self._start(texts.OPENING.format(name=state.bank.folder.name), call, lambda shelf: state.show(shelf))

    def show(self, gallery: Any) -> None:
        """Show a gallery; the one before stays in its folder, where every edit of it is."""
        before = self._state.gallery
        self._state.show(GalleryShelf(gallery), gallery)
        self._state.say(texts.OPENED.format(title=gallery.info.title, count=len(gallery)))
        if before is not None and before is not gallery:
            self._retire(before)

    def close(self) -> None:
        """Show nothing."""
        before = self._state.gallery
        self._state.bank, self._state.rows = None, ()
        self._state.show(None)
        self._state.say("")
        if before is not None:
            self._retire(before)

    def stop(self, *_: object) -> None:
        """Stop what runs."""
        if self.job is not None:
            self.job.cancel()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _start(self, title: str, call: Work, done: Callable[[Any], None]) -> None:
        if self.job is not None:
            self._state.say(texts.BUSY, level="warning")
            return
        job = Job(title, call)
        came: list[Any] = []
        job.returned.connect(came.append)
        job.failed.connect(self._state.fail)
        job.cancelled.connect(lambda: self._state.say(texts.STOPPED))
        job.ended.connect(lambda: self._over(job, done, came))
        self.job = job
        self.working.emit(job)
        job.start()

    def _over(self, job: Job, done: Callable[[Any], None], came: list[Any]) -> None:
        self.job = None
        self.working.emit(None)
        job.deleteLater()
        # what comes of it may begin something else
        for value in came:
            done(value)

    def _bank(self, bank: Any) -> None:
        self._state.show_rows(bank, range(len(bank)), texts.ROWS.format(count=len(bank), bank=bank.folder.name))

    def _saved(self, path: str | Path) -> None:
        self._state.say(texts.SAVED.format(path=path))

    def _imported(self, count: int) -> None:
        self._state.say(texts.IMPORTED.format(count=count))
        self._state.edited.emit()

    def _relocated(self, came: tuple[int, int]) -> None:
        found, left = came
        self._state.say(texts.FOUND.format(count=found, left=left))
        self._state.edited.emit()

    def _gallery(self) -> Any:
        if self._state.gallery is None:
            self._state.say(texts.BANK_ONLY if self._state.bank is not None else texts.OPEN_FIRST, level="warning")
        return self._state.gallery

    def _name(self, name: str) -> str:
        path: str
        path, _ = QFileDialog.getSaveFileName(
            self._window, texts.NAME_IT, str(self._home() / name), f"{texts.GALLERY} (*{ENDING})"
        )
        return path if not path or path.endswith(ENDING) else path + ENDING

    def _home(self) -> Path:
        return settings.user_folder("galleries")


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_ " else "-" for c in name)


def _open(run: Run, emit: Emit, *, folder: str | Path) -> Any:
    from seglens.workspace.gallery import Gallery

    return Gallery.open(folder)


def _of_model(run: Run, emit: Emit, *, model: Any, folder: str | Path) -> Any:
    from seglens.workspace.gallery import Gallery, gallery_of_model

    if (Path(folder) / "gallery.sqlite").exists():
        found = Gallery.open(folder)
        if found.info.model_sha256 == model.fingerprint():
            return found
        found.close()
        raise BadParameter(
            f"{Path(folder).name} is a gallery of {found.info.model}, not of {model.spec.name}.",
            fix="Choose another name, or open it with Gallery ▸ Open.",
        )
    return gallery_of_model(model, Path(folder))


def _of_rows(run: Run, emit: Emit, *, bank: Any, rows: list[int], folder: str | Path) -> Any:
    from seglens.workspace.gallery import gallery_of_bank

    return gallery_of_bank(bank, rows, Path(folder), run=run)


def _blank(run: Run, emit: Emit, *, model: Any, folder: str | Path) -> Any:
    from seglens.engine.features import feature_layer
    from seglens.engine.prototypes import check_prototypes
    from seglens.workspace.gallery import Gallery

    try:
        check_prototypes(model)
        layer = ""
    except MissingNeed:
        # what is exported as a graph has no layers, so items come without a vector
        layer = feature_layer(model) if model.layered else ""
    return Gallery.create(
        folder, classes=[c.name for c in model.spec.classes], axes=model.spec.axes, model=model.spec.name,
        model_source=model.source, model_sha256=model.fingerprint(), layer=layer,
    )  # fmt: skip


def _open_bank(run: Run, emit: Emit, *, folder: str | Path) -> Any:
    from seglens.engine.features import FeatureBank

    return FeatureBank.open(folder)


def _shelf(run: Run, emit: Emit, *, bank: Any, rows: Any, title: str) -> BankShelf:
    return BankShelf(bank, rows, title)


def _copy(run: Run, emit: Emit, *, gallery: Any, folder: str) -> str:
    gallery.copy(Path(folder))
    return folder


def _export(run: Run, emit: Emit, *, gallery: Any, kind: str, path: str) -> str:
    if kind == "table":
        gallery.export_table(path)
    elif kind == "html":
        gallery.export_html(path, run)
    else:
        gallery.export(path, run)
    return path


def _network(run: Run, emit: Emit, *, gallery: Any, model: Any, folder: str) -> str:
    from seglens.engine.prototypes import save_edited
    from seglens.workspace.gallery import edit_of

    edit, _ = edit_of(gallery, model)
    return str(save_edited(model, edit, Path(folder)))


def _of_export(run: Run, emit: Emit, *, source: Path, folder: str) -> Any:
    from seglens.workspace.gallery import gallery_of_export

    return gallery_of_export(source, folder, run=run)


def _import(run: Run, emit: Emit, *, gallery: Any, path: Path) -> int:
    return int(gallery.import_(path, run))


def _relocate(run: Run, emit: Emit, *, gallery: Any, folder: str) -> tuple[int, int]:
    found = gallery.relocate(Path(folder), run)
    return found, len(gallery.missing())
