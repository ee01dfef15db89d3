"""A prototype network of known prototypes, its gallery, and the gallery's dock as a person uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qtpy.QtCore import QPoint, Qt
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.app.napari.gallery.widget import PrototypeGallery
from seglens.app.napari.viewer_session import layer_id, session_of
from seglens.models.nets.proto_unet import PrototypeHead
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from
from seglens.workspace.gallery import Gallery, NewItem

DARK, MIDDLE, LIGHT = 0.1, 0.45, 0.9
VALUES = (DARK, LIGHT, MIDDLE)  # of the prototypes 1, 2 and 3: background, cell, cell


class Shades(nn.Module):
    """Features are the mean over the channels, at half the resolution; prototypes are shades of it."""

    def __init__(self, values: Sequence[float] = VALUES, owners: Sequence[int] = (0, 1, 1)) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1, bias=False)
        self.head = PrototypeHead(1, 2, owners)
        with torch.no_grad():
            self.features.weight.fill_(1.0)
            self.head.similarity.vectors.copy_(torch.tensor(values)[:, None])
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        small = F.avg_pool2d(self.features(x.mean(1, keepdim=True)), 2)
        return F.interpolate(self.head(small), x.shape[2:], mode="bilinear", align_corners=False)


def shades(channels: int = 1, **more: Any) -> SegmentationModel:
    """The network as a model."""
    names = tuple(f"c{i}" for i in range(channels))
    classes = classes_from(["background", "cell"])
    spec = ModelSpec("shades", "YX", names, classes, normalisation=Normalisation("none"), divisor=2)
    return SegmentationModel(Shades(**more).eval(), spec, source="shades")


def squares(height: int = 64, width: int = 80) -> np.ndarray:
    """A dark image with a light square at (8, 8) and one of a middle shade at (40, 48), 16 pixels each."""
    data = np.full((height, width), DARK, np.float32)
    data[8:24, 8:24] = LIGHT
    data[40:56, 48:64] = MIDDLE
    return data


PLACES = {1: (30, 30), 2: (16, 16), 3: (48, 56)}


def gallery_of(
    model: SegmentationModel, folder: Path, image: str = "", source: str = "", *, activity: bool = True
) -> Gallery:
    """A gallery of the network's three prototypes, as they lie in :func:`squares`."""
    gallery = Gallery.create(
        folder, title="shades", classes=["background", "cell"], model="shades", model_source="shades",
        model_sha256=model.fingerprint(),
    )  # fmt: skip
    labels = {1: "background", 2: "cell", 3: "cell"}
    gallery.add_many(
        NewItem(
            labels[n], np.full((16, 16), round(255 * VALUES[n - 1]), np.uint8), at,
            tuple((p - 8, p + 8) for p in at), image, "squares", source, {}, n,
            activity=n / 10 if activity else None, group=source, vector=np.array([VALUES[n - 1]], np.float32),
        )
        for n, at in PLACES.items()
    )  # fmt: skip
    return gallery


def many(folder: Path, count: int) -> Gallery:
    """A gallery of as many items, of two classes and some images."""
    gallery = Gallery.create(folder, title="many", classes=["background", "cell"])
    crop = np.zeros((12, 12), np.uint8)
    gallery.add_many(
        NewItem(
            "cell" if n % 3 else "background", crop + n % 255, (5, 5), ((0, 10), (0, 10)), f"{n % 7:064x}",
            f"image {n % 7}", activity=(n * 7919 % count) / count,
        )
        for n in range(count)
    )  # fmt: skip
    return gallery


class GalleryDriver:
    """The gallery's dock in a viewer."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.dock = PrototypeGallery(viewer)
        self.holder = viewer.window.add_dock_widget(self.dock, name="Prototype gallery", area="bottom")
        self.session, self.state = session_of(viewer), self.dock.state

    @property
    def wall(self) -> Any:
        """The thumbnails."""
        return self.dock.wall

    def image(self, data: np.ndarray, **more: Any) -> Any:
        """Add an image, and ask about it."""
        layer = self.viewer.add_image(data, **more)
        self.session.question.layer_id = layer_id(layer)
        return layer

    def use(self, model: SegmentationModel) -> None:
        """Put a model where loading would put it."""
        chosen = self.session.model
        chosen.source = model.source
        chosen.spec, chosen.loaded = model.spec, model

    def open(self, gallery: Gallery) -> None:
        """Show a gallery and wait until all is known."""
        self.dock.files.show(gallery)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is on its way."""
        d = self.dock
        self.wait(lambda: not (d.editor.busy or d.looker.busy or d.jumper.busy or d.files.job))
        self.qtbot.wait(5)

    def wait(self, what: Callable[[], Any], timeout: int = 20_000) -> None:
        """Wait for something."""
        self.qtbot.waitUntil(lambda: bool(what()), timeout=timeout)

    def place(self, row: int) -> QPoint:
        """Where an item is seen."""
        index = self.wall.items.index(row, 0)
        self.wall.scrollTo(index)
        return self.wall.visualRect(index).center()

    def click(self, row: int, held: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        """Click an item once."""
        self.qtbot.mouseClick(self.wall.viewport(), Qt.MouseButton.LeftButton, held, self.place(row))

    def double_click(self, row: int) -> None:
        """Click an item twice, as Qt tells it: press, release, double, release."""
        at = self.place(row)
        self.qtbot.mouseClick(self.wall.viewport(), Qt.MouseButton.LeftButton, pos=at)
        self.qtbot.mouseDClick(self.wall.viewport(), Qt.MouseButton.LeftButton, pos=at)

    def key(self, key: Any, held: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key on the thumbnails, and wait for what it does."""
        self.qtbot.keyClick(self.wall, key, held)
        self.settle()

    def choose(self, *rows: int) -> None:
        """Select items with the mouse: click, then Ctrl and click."""
        for number, row in enumerate(rows):
            self.click(row, Qt.KeyboardModifier.ControlModifier if number else Qt.KeyboardModifier.NoModifier)
        self.wall._timer.stop()

    def says(self) -> str:
        """What stands at the bottom."""
        message = self.state.message
        return "" if message is None else f"{message.what} {message.fix}".strip()

    def layer(self, name: str) -> Any:
        """A layer by name."""
        return self.viewer.layers[name]

    def shown(self) -> list[int]:
        """The ids in the order in which they are shown."""
        items = self.wall.items
        return [items.item(n).id for n in range(items.rowCount())]
