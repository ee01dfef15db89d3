"""New galleries: of the prototypes of a network, of entries of a feature bank, of what was exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.run import Run
from seglens.core.saving import new_folder
from seglens.workspace.gallery.cutting import Cutter
from seglens.workspace.gallery.exchange import TableFile, read_about
from seglens.workspace.gallery.gallery import Gallery
from seglens.workspace.gallery.item import Info, NewItem

if TYPE_CHECKING:
    from seglens.engine.features import Entry, FeatureBank
    from seglens.models.segmentation import SegmentationModel

# Among so many of a class the typical ones are looked for: the kernel takes the square of it.
MOST = 2000


def gallery_of_model(model: SegmentationModel, folder: str | Path, *, title: str = "") -> Gallery:
    """A new gallery with one item for each prototype of a prototype network.

    Raises:
        MissingNeed: the model is no prototype network.
        BadParameter: the folder is not empty or cannot be made.
    """
    # late: these import torch
    from seglens.engine.features import group_of
    from seglens.engine.prototypes import check_prototypes, prototypes_of

    vectors = check_prototypes(model).prototypes.detach().cpu().numpy()
    known = prototypes_of(model)

    def items() -> Iterator[NewItem]:
        for one in known:
            place = one.source or one.name
            yield NewItem(
                one.label, one.crop if one.crop.size else None, one.position, one.box, one.image, one.name, one.source,
                prototype=one.number, group=group_of(place, "file") if place else "", vector=vectors[one.number - 1],
            )  # fmt: skip

    about = {"model": model.spec.name, "model_source": model.source, "model_sha256": model.fingerprint()}
    classes = [c.name for c in model.spec.classes]
    return _made(
        folder, items(), f"took the prototypes of {model.spec.name}",
        title=title, classes=classes, axes=model.spec.axes, **about,
    )  # fmt: skip


def gallery_of_bank(
    bank: FeatureBank,
    rows: Sequence[int] | NDArray[Any],
    folder: str | Path,
    *,
    title: str = "",
    run: Run | None = None,
) -> Gallery:
    """A new gallery of entries of a feature bank, image by image; pictures are cut out of the images.

    An item is of the class that was predicted; its note tells the true one, where that is known. Where an image is
    not there, or is not the one that the bank has seen, its items have no picture.

    Args:
        bank: what to take from; a batch of an image's vectors is read at a time.
        rows: which entries.
        folder: new.
        title: by default the name of the folder.
        run: progress, cancel, notes.

    Raises:
        BadParameter: the folder is not empty or cannot be made, or no such row.
        Cancelled: stopped; there is no gallery.
    """
    run, info = run or Run(), bank.info
    entries = sorted(zip((int(r) for r in rows), bank.entries(rows), strict=True), key=_image_first)
    return _made(
        folder, _of_entries(bank, entries, run), f"took {len(entries)} entries of {bank.folder.name}",
        title=title, classes=info.classes, axes=info.axes, model=info.model, model_source=info.model_source,
        model_sha256=info.model_sha256, layer=info.layer, bank=str(bank.folder.absolute()), group=info.group,
    )  # fmt: skip


def typical(bank: FeatureBank, per_class: int, *, run: Run | None = None, most: int = MOST) -> list[int]:
    """Rows of a bank that stand for each predicted class: prototypes by maximum mean discrepancy (MMD-critic).

    Args:
        bank: where to choose.
        per_class: how many of each class, at most.
        run: seed, cancel.
        most: of a class with more entries so many are drawn by the seed.

    Raises:
        BadParameter: less than one per class, or the bank is empty.
    """
    from seglens.methods.prototype._mmd import gamma_of, prototypes, squared_distances

    run = run or Run()
    if per_class < 1 or not len(bank):
        raise BadParameter(
            f"{per_class} of each class cannot be chosen from {len(bank)} entries.",
            fix="Ask for 1 or more, of a bank that holds something.",
        )
    chosen: list[int] = []
    for done, name in enumerate(bank.info.classes):
        run.progress(done, len(bank.info.classes), f"Choosing {name}")
        rows = bank.rows(predicted=name)
        if len(rows) > most:
            rng = np.random.default_rng([run.seed, done])
            run.note(f"{name} has {len(rows)} entries; the typical ones were chosen among {most} drawn by the seed.")
            rows = np.sort(rng.choice(rows, most, replace=False))
        if len(rows):
            distances = squared_distances(*[bank.vectors(rows)] * 2)
            kernel = np.exp(-gamma_of(distances) * distances)
            chosen += [int(rows[place]) for place in prototypes(kernel, per_class)]
    return chosen


def gallery_of_export(source: str | Path, folder: str | Path, *, title: str = "", run: Run | None = None) -> Gallery:
    """A new gallery of an exported folder, or of a table whose classes are those of its labels.

    Raises:
        ImageMismatch, BadParameter, Cancelled: as :meth:`Gallery.import_`; then there is no gallery.
    """
    path = Path(source).expanduser()
    about = read_about(path) if path.is_dir() else None
    if about is None:
        about = Info(title or path.stem, tuple(TableFile(path).labels))
    told = replace(about, title=title or about.title)
    with new_folder(folder) as new:
        known = {key: getattr(told, key) for key in Info.__dataclass_fields__ if key != "created"}
        gallery = Gallery.create(new, **known)
        try:
            gallery.import_(path, run)
        except BaseException:
            gallery.close()
            raise
    return gallery


def _made(folder: str | Path, items: Iterator[NewItem], what: str, **about: Any) -> Gallery:
    """A gallery with its first items, or none at all."""
    with new_folder(folder) as new:
        gallery = Gallery.create(new, **about)
        try:
            gallery.add_many(items, what)
        except BaseException:
            gallery.close()
            raise
    return gallery


def _image_first(one: tuple[int, Entry]) -> tuple[str, str, list[tuple[str, int]], int]:
    row, entry = one
    return entry.source, entry.image, sorted(entry.select.items()), row


def _of_entries(bank: FeatureBank, entries: Sequence[tuple[int, Entry]], run: Run) -> Iterator[NewItem]:
    cut, missing = Cutter(bank.info.axes), set[str]()
    for done, (row, entry) in enumerate(entries):
        run.progress(done, len(entries), f"Cutting from {entry.name}")
        crop = None
        if entry.image not in missing:
            try:
                crop = cut(entry.source, entry.image, entry.box, entry.position, entry.select)
            except ImageMismatch as error:
                missing.add(entry.image)
                run.note(f"Items of {entry.name} have no picture: {error.what}")
        yield NewItem(
            entry.predicted, crop, entry.position, entry.box, entry.image, entry.name, entry.source, entry.select,
            group=entry.group, note=_note(entry), vector=bank.vectors([row])[0],
        )  # fmt: skip


def _note(entry: Entry) -> str:
    if entry.truth is None:
        return ""
    overlap = "" if entry.iou is None else f", IoU {entry.iou:.2f}"
    return f"truth: {entry.truth}{overlap}"
