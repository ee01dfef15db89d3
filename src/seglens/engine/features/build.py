"""Building a feature bank from images: with progress, with cancel inside an image, and going on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import Cancelled, ImageMismatch, SegLensError
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.features._looking import Looking
from seglens.engine.features._pieces import described, numbered
from seglens.engine.features._settings import Source, bank_info, expanded, opened, where
from seglens.engine.features._table import connect_lock
from seglens.engine.features._truth import Given, Masks
from seglens.engine.features.bank import FeatureBank
from seglens.engine.features.entry import Entry, Failure, Kind, MaskKind, Precision
from seglens.engine.features.groups import group_of
from seglens.models.intake import check_fits, fit_intake
from seglens.models.layers import find_layer
from seglens.models.segmentation import SegmentationModel, quiet


def build_bank(
    model: SegmentationModel,
    images: Source | Sequence[Source],
    out: str | Path,
    *,
    layer: str | None = None,
    kind: Kind = "object",
    masks: Given | None = None,
    masks_are: MaskKind | None = None,
    group: str = "file",
    classes: Iterable[str | int] = (),
    per_image: int | None = None,
    smallest: int = 1,
    side: int | None = None,
    tile: int | None = None,
    precision: Precision = "float16",
    opener: Callable[[str], Image] = open_image,
    run: Run | None = None,
) -> FeatureBank:
    """Embed what a model draws on many images; a bank that was begun with the same settings is gone on with.

    A finished image is not looked at again, however it is called now; of one that was stopped in the middle nothing is
    kept. One that cannot be embedded is noted, listed in the bank (``failures``), and tried again the next time.

    Args:
        model: the model; left as it was.
        images: files, folders, samples or images; further axes (T, or Z for a 2-D model) are walked through.
        out: folder of the bank.
        layer: name of the layer; by default :func:`~seglens.engine.features.feature_layer`.
        kind: ``object`` (connected parts of a predicted class), ``patch`` (windows side by side) or ``pixel``.
        masks: the truth: a folder of files called like the images, or names of images to files or arrays.
        masks_are: numbers of objects (``instances``, of the first class after background) or of ``classes``.
        group: what must not leak: ``file``, ``folder`` or an expression; see :func:`~seglens.engine.features.group_of`.
        classes: take only what is predicted as one of these.
        per_image: most embeddings of one image (time point, slice); by default 500 pixels, all of other kinds.
        smallest: leave out regions of fewer pixels.
        side: side of a patch; by default 32 pixels (16 in volumes), at least the layer's stride.
        tile: look at images in tiles of this side; by default only at those of more than 4 million values.
        precision, opener: type in which embeddings are kept; opens a file of ``images``.
        run: progress, cancel, notes, and the seed of the choice.

    Raises:
        UnknownName, MissingNeed, BadParameter: settings that cannot be, or a folder that holds something else.
        SegLensError: the first image's, if none could be embedded; Cancelled within one tile of the request.
    """
    run = run or Run()
    sources = expanded(images)
    known = Masks(masks, len(model.spec.classes), masks_are, run)
    truth = known.kind if len(known) else ""
    found = bank_info(model, layer, kind, group=group, only=tuple(classes), per_image=per_image, smallest=smallest,
                      side=side, tile=tile, precision=precision, seed=run.seed, truth=truth)  # fmt: skip
    groups = [group_of(where(one), group) for one in sources]
    bank = opened(Path(out).expanduser(), found)
    try:
        with closing(connect_lock(bank.folder / "build.lock")), quiet(model.module):
            _Build(bank, model, known, opener, run).all(sources, groups)
    except BaseException:
        bank.close()
        raise
    return bank


@dataclass(frozen=True, eq=False)
class _Build:
    """One build: what is embedded, and into what."""

    bank: FeatureBank
    model: SegmentationModel
    masks: Masks
    opener: Callable[[str], Image]
    run: Run

    def all(self, sources: Sequence[Source], groups: Sequence[str]) -> None:
        """Every image; what fails is noted.

        Raises:
            SegLensError: of the first image, if none could be embedded.
        """
        table, failed = self.bank.table, list[SegLensError]()
        table.drop_unfinished()
        table.forget_failures()
        done = {row.fingerprint: row.name for row in self.bank.images()}
        for place, (source, group) in enumerate(zip(sources, groups, strict=True)):
            self.run.progress(place, len(sources), "images")
            try:
                image = source if isinstance(source, Image) else self.opener(str(source))
                self.one(image, group, done)
            except Cancelled:
                table.drop_unfinished()
                raise
            except SegLensError as error:
                table.drop_unfinished()
                name = source.name if isinstance(source, Image) else Path(source).name
                table.fail(Failure(name, where(source), error.what, error.fix))
                self.run.note(f"{name} was left out: {error.what}")
                failed.append(error)
        if failed and not self.bank.images():
            raise failed[0]
        self.run.progress(len(sources), len(sources), "images")

    def one(self, image: Image, group: str, done: dict[str, str]) -> None:
        """One image, unless it is there."""
        spec = self.model.spec
        check_fits(image, spec, stack=True)
        fingerprint = image.fingerprint()
        if fingerprint in done:
            if done[fingerprint] != image.name:
                self.run.note(f"{image.name} has the very pixels of {done[fingerprint]}; the bank has them once.")
            return
        further = [a for a in image.kept if a not in spec.axes and a != "C"]
        mask = self._mask(image, [*further, *spec.axes])
        spots = list(product(*(range(image.size(a)) for a in further)))
        for place, spot in enumerate(spots):
            at = dict(zip(further, spot, strict=True))
            blank = Entry(fingerprint, image.name, image.source, at, self.bank.info.kind, (), (), 0, "", group=group)
            rng = np.random.default_rng([self.run.seed, int(fingerprint[:12], 16), place])
            try:
                self._plane(image.select(**at) if at else image, None if mask is None else mask[spot], blank, rng)
            except ImageMismatch as error:
                if not at:
                    raise
                self.run.note(f"{', '.join(f'{a}={n}' for a, n in at.items())} was left out: {error.what}")
            if at:
                self.run.progress(place + 1, len(spots), image.name)
        self.bank.table.finish(fingerprint, image.name, image.source, group)
        done[fingerprint] = image.name

    def _mask(self, image: Image, order: Sequence[str]) -> NDArray[Any] | None:
        mask = self.masks.of(image)
        if mask is None:
            if len(self.masks):
                self.run.note(f"There is no mask of {image.name}, so what is true there is not known.")
            return None
        kept = image.kept.replace("C", "")
        return mask.transpose([kept.index(a) for a in order])

    def _plane(self, view: Image, mask: NDArray[Any] | None, blank: Entry, rng: np.random.Generator) -> None:
        # normalised by itself, as when it is explained
        intake, layer = fit_intake(view, self.model.spec), find_layer(self.model, self.bank.info.layer)
        looking = Looking(self.model, layer, intake, self.bank.info.tile, self.run)
        grid = looking.grid(view)
        labels, whole = looking.labels(view, grid)
        numbers, count = numbered(labels, self.bank.info, rng)
        if not count:
            return
        sums = looking.sums(view, grid, numbers, count, whole)
        truth = None if mask is None else self.masks.truth(mask)
        entries, pixels = [], []
        for piece in described(numbers, labels, truth, self.bank.info):
            self.run.check()
            entries.append(replace(blank, **vars(piece)))
            pixels.append(piece.pixels)
        self.bank.append(sums / np.asarray(pixels)[:, None], entries)
