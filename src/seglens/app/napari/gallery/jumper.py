"""From an item to its place: in its image if that is open, else the image is opened."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Layer
from qtpy.QtCore import QObject

from seglens.app.napari import adapt, asking, going, results
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.jobs import Emit, Job
from seglens.app.napari.viewer_session import ViewerSession, is_ours, layer_id
from seglens.core.errors import SegLensError
from seglens.core.files import SAMPLE, open_image
from seglens.core.image import Image
from seglens.core.run import Run


@dataclass(frozen=True, eq=False)
class _Open:
    """An image layer that may be an item's image."""

    key: str
    source: str
    image: Image


class Jumper(QObject):
    """Goes to the place of an item.

    Args:
        session: whose viewer.
        state: what is shown.
        parent: its end is the end of this.
    """

    def __init__(self, session: ViewerSession, state: GalleryState, parent: QObject) -> None:
        """Stays where it is at first."""
        super().__init__(parent)
        self._session, self._state = session, state
        self._job: Job | None = None
        self._known: dict[str, str] = {}  # fingerprint of an item's image to the layer that it is

    @property
    def busy(self) -> bool:
        """Whether an image is being looked for."""
        return self._job is not None

    def here(self, item: Any) -> Layer | None:
        """The layer of an item's image, as far as it is known without reading pixels."""
        layer = self._session.layer(self._known.get(item.image, ""))
        if layer is not None:
            return layer
        return next((x for x in self._layers() if item.source and _same(adapt.source_of(x), item.source)), None)

    def go(self, item: Any) -> None:
        """Go to an item; what cannot be found is said, and nothing is lost."""
        layer = self.here(item)
        if layer is not None:
            self._show(layer, item)
            return
        if self._job is not None:
            self._job.cancel()
        job = Job(texts.OPENING.format(name=item.name), partial(_find, item=item, layers=self._candidates()))
        job.returned.connect(lambda found: self._found(item, found))
        job.failed.connect(self._state.fail)
        job.ended.connect(lambda: self._over(job))
        self._job = job
        job.start()

    def stop(self, *_: object) -> None:
        """Look no more."""
        if self._job is not None:
            self._job.cancel()

    def _layers(self) -> list[ImageLayer]:
        viewer = self._session.viewer
        layers = [] if viewer is None else [x for x in viewer.layers if isinstance(x, ImageLayer) and not is_ours(x)]
        # the image that is looked at comes first
        return sorted(layers, key=lambda x: layer_id(x) != self._session.question.layer_id)

    def _candidates(self) -> list[_Open]:
        found = []
        for layer in self._layers():
            try:
                image = adapt.image_of(layer, asking.axes_of(self._session, layer))
            except SegLensError:
                continue
            found.append(_Open(layer_id(layer), adapt.source_of(layer), image))
        return found

    def _found(self, item: Any, found: str | Image | list[Any] | None) -> None:
        viewer = self._session.viewer
        if viewer is None:
            return
        if found is None:
            sentence = texts.MISSING if item.source else texts.NEVER_A_FILE
            self._state.say(sentence.format(name=item.name or texts.NAMELESS, source=item.source), level="warning")
            if item.source:
                self._state.miss(self._state.missing | {item.source})
            return
        layer = self._session.layer(found) if isinstance(found, str) else self._open(viewer, item, found)
        if layer is not None:
            self._known[item.image] = layer_id(layer)
            self._show(layer, item)

    def _open(self, viewer: Any, item: Any, found: Any) -> Layer | None:
        if isinstance(found, Image):
            plain = found.axes.replace("C", "") if _is_rgb(found) else found.axes
            layer = ImageLayer(
                found.data, name=found.name, rgb=_is_rgb(found), metadata={"seglens_source": item.source},
                scale=[float(found.pixel_size.get(a, 1.0)) for a in plain], axis_labels=tuple(plain),
            )  # fmt: skip
            viewer.add_layer(layer)
            return layer
        before = set(viewer.layers)
        for data, settings, kind in found:
            viewer.add_layer(Layer.create(data, settings, str(kind)))
        fresh = next((x for x in viewer.layers if x not in before and isinstance(x, ImageLayer)), None)
        if fresh is not None:
            fresh.metadata.setdefault("seglens_source", item.source)
        return fresh

    def _show(self, layer: Layer, item: Any) -> None:
        viewer = self._session.viewer
        try:
            axes = asking.axes_of(self._session, layer)[: layer.ndim]
        except SegLensError as error:
            self._state.fail(error)
            return
        if viewer is None:
            return
        layer.visible = True
        if self._session.question.layer_id != layer_id(layer):
            # maps are of the image that was looked at before
            results.step_back(viewer)
            self._session.question.layer_id = layer_id(layer)
        going.show(viewer, layer, corners(item, layer, axes, self._axes_of(item)), axes, texts.ITEM.format(id=item.id))

    def _axes_of(self, item: Any) -> str:
        gallery, bank = self._state.gallery, self._state.bank
        told = gallery.info.axes if gallery is not None else bank.info.axes if bank is not None else "YX"
        return str(told)

    def _over(self, job: Job) -> None:
        if self._job is job:
            self._job = None
        job.deleteLater()


def corners(item: Any, layer: Layer, axes: str, known: str) -> going.Corners:
    """First and last pixel of an item's box along every axis of its image's layer; clipped to it.

    Args:
        item: its box has the axes ``known``.
        layer: its image.
        axes: of the layer.
        known: axes of the box.
    """
    box = dict(zip(known, item.box, strict=False))
    sizes = adapt.pixels(layer).shape
    low, high = np.zeros(len(axes)), np.zeros(len(axes))
    for i, axis in enumerate(axes):
        first, last = (0, sizes[i] - 1) if axis == "C" else (item.select.get(axis, 0),) * 2
        if axis in box:
            first, last = box[axis][0], box[axis][1] - 1
        low[i], high[i] = np.clip((first, last), 0, sizes[i] - 1)
    return low, high


def _find(run: Run, emit: Emit, *, item: Any, layers: Sequence[_Open]) -> str | Image | list[Any] | None:
    """The layer of an item's image; else the image itself, opened; ``None`` if there is none."""
    for one in layers:
        run.check()
        if item.image and item.image in _fingerprints(one.image, item.select):
            return one.key
    if item.source.startswith(SAMPLE):
        from seglens.sample_data import sample_layers

        return list(sample_layers(item.source[len(SAMPLE) :]))
    if not item.source or not Path(item.source).exists():
        return None
    return open_image(item.source)


def _fingerprints(image: Image, select: Any) -> set[str]:
    """Those of the whole image, and of the slice that an item was chosen in."""
    found = {image.fingerprint()}
    if select and all(a in image.kept and at < image.size(a) for a, at in select.items()):
        found.add(image.select(**select).fingerprint())
    return found


def _same(one: str, other: str) -> bool:
    if SAMPLE in (one[: len(SAMPLE)], other[: len(SAMPLE)]) or not one:
        return one == other
    return one == other or Path(one).expanduser().absolute() == Path(other).expanduser().absolute()


def _is_rgb(image: Image) -> bool:
    return image.axes.endswith("C") and image.dtype == np.uint8 and image.data.shape[-1] in (3, 4)
