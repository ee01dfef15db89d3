"""Tiny hand-wired models, images, and a dock as a person uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seglens.app.napari.viewer_session import State
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from


class Bright(nn.Module):
    """Class 1 where the mean of the channels is above a half; ``pause`` seconds a pass, without holding the GIL."""

    def __init__(self, dims: int = 2, pause: float = 0.0) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.features = conv(1, 4, 3, padding=1, bias=False)
        self.pause = pause
        self.passes = 0
        with torch.no_grad():
            self.features.weight.fill_(1 / 3**dims)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        time.sleep(self.pause)
        seen = torch.relu(self.features(x.mean(1, keepdim=True))).mean(1, keepdim=True)
        score = 20 * (seen - 0.5)
        return torch.cat([torch.zeros_like(score), score], 1)


def make_model(channels: int = 1, dims: int = 2, pause: float = 0.0, **more: Any) -> SegmentationModel:
    """A model that finds what is bright."""
    names = tuple(f"c{i}" for i in range(channels))
    axes = "YX" if dims == 2 else "ZYX"
    more.setdefault("normalisation", Normalisation("none"))
    spec = ModelSpec("bright", axes, names, classes_from(["background", "cell"]), **more)
    return SegmentationModel(Bright(dims, pause).eval(), spec, source="bright")


def blobs(*shape: int) -> np.ndarray:
    """A dark image with a bright square in the middle of its last two axes, and one in a corner."""
    data = np.full(shape, 0.1, np.float32)
    y, x = shape[-2] // 2, shape[-1] // 2
    data[..., y - 6 : y + 6, x - 8 : x + 8] = 0.9
    data[..., 2:8, 2:8] = 0.9
    return data


class Driver:
    """A dock in a viewer, and how a person uses it."""

    def __init__(self, viewer: Any, dock: Any, qtbot: Any) -> None:
        self.viewer, self.dock, self.qtbot = viewer, dock, qtbot
        self.session = dock.session

    def use(self, model: SegmentationModel) -> None:
        """Put a model where loading would put it."""
        from seglens.models.layers import layers
        from seglens.session_layers import layers_of

        chosen = self.session.model
        chosen.source, chosen.loading, chosen.untrusted, chosen.suggested = model.source, False, "", False
        chosen.layers = tuple(info.name for info in layers(model))
        chosen.depths = tuple(info.name for info in layers_of(model))
        chosen.spec, chosen.loaded = model.spec, model

    def press(self) -> None:
        """Press the one button."""
        self.dock.footer.button.click()

    def wait(self, what: Callable[[], Any] | None = None, timeout: int = 20_000) -> None:
        """Wait for something, or until nothing runs."""
        done = what or (lambda: self.session.status.state is State.IDLE)
        self.qtbot.waitUntil(lambda: bool(done()), timeout=timeout)

    def run(self) -> None:
        """Press and wait."""
        self.press()
        self.wait()

    def say(self) -> str:
        """What stands above the footer."""
        message = self.session.status.message
        return "" if message is None else f"{message.what} {message.fix}".strip()

    def named(self, name: str) -> Any:
        """A layer by name."""
        return self.viewer.layers[name]
