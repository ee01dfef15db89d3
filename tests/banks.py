"""Small feature banks of hand-wired networks, built once a session for each network."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hand import context_image, wrap
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.engine.features import FeatureBank, build_bank
from seglens.models.segmentation import SegmentationModel

_BUILT: dict[str, FeatureBank] = {}


def bank_for(model: SegmentationModel, images: int = 6) -> FeatureBank:
    """A bank of the objects that a model draws on a few :func:`hand.context_image`, with their truth.

    The network itself is not called: a twin of the class that it is derived from is, so that a test may count.
    """
    key = f"{model.fingerprint()} {model.spec.axes} {images}"
    if key not in _BUILT:
        folder = Path(tempfile.mkdtemp(prefix="seglens-bank-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        shown = pictures(model.spec.ndim, images)
        _BUILT[key] = build_bank(_twin(model), shown, folder / "small.bank", masks=truth(shown), masks_are="classes")
    return _BUILT[key]


def pictures(dims: int, count: int):
    """Images with different names; the first has the pixels of the usual one."""
    return [replace(context_image(dims, seed)[0], name=f"context {seed}") for seed in range(count)]


def truth(images):
    """Masks of classes by the images' names: a cell is healthy, whatever is beside it."""
    return {image.name: (image.read(image.kept) > 0.3).astype(int) for image in images}


def _twin(model: SegmentationModel) -> SegmentationModel:
    module = copy.deepcopy(model.module)
    module.__class__ = next(c for c in type(module).__mro__ if "<locals>" not in c.__qualname__)
    twin = SegmentationModel(module.eval(), model.spec, device=model.device)
    twin.fingerprint = model.fingerprint  # type: ignore[method-assign]
    return twin


class Attributes(nn.Module):
    """Cells of channel 0; the logit of *cell* also follows channel 1, and channel 2 is seen and does not matter.

    The features (16 channels) are the three channels along orthonormal directions, rows of :attr:`basis`.
    """

    def __init__(self, seed: int = 0) -> None:
        """Wire it; the directions are drawn by the seed."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.basis = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0][:3]
        self.features, self.head = nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(16, 2, 1)
        with torch.no_grad():
            self.features.weight.copy_(self.basis.T[..., None, None])
            self.head.weight.zero_()
            self.head.weight[1] = (20 * self.basis[0] + 2 * self.basis[1])[:, None, None]
            self.head.bias.copy_(torch.tensor([0.0, -10.0]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, *space) to (N, 2, *space)."""
        return self.head(self.features(x))


def attribute_image(seed: int):
    """An image of nine cells, each with or without attribute 1 and 2: image, numbers of cells, both attributes."""
    rng = np.random.default_rng(seed)
    pixels = 0.05 * rng.normal(size=(3, 36, 36))
    with_1, with_2 = rng.random(9) < 0.5, rng.random(9) < 0.5
    numbers = np.zeros((36, 36), int)
    for n in range(9):
        at = (slice(3 + 12 * (n // 3), 9 + 12 * (n // 3)), slice(3 + 12 * (n % 3), 9 + 12 * (n % 3)))
        numbers[at] = n + 1
        pixels[0][at] = 1
        pixels[1][at] += with_1[n]
        pixels[2][at] += with_2[n]
        # cells differ, too, not their pixels alone
        pixels[(slice(None), *at)] += [[[0.03]], [[0.1]], [[0.1]]] * rng.normal(size=(3, 1, 1))
    return Image(pixels.astype(np.float32), "CYX", name=f"attributes {seed}"), numbers, with_1, with_2


def attribute_bank(folder: Path, model: SegmentationModel, images: int = 12, save: bool = False):
    """A bank of such images, with the attributes of its rows; saved images can be opened again."""
    shown, first, second = [], [], []
    for seed in range(images):
        image, _, with_1, with_2 = attribute_image(seed)
        if save:
            np.save(folder / f"image{seed}.npy", image.data)
            image = open_image(folder / f"image{seed}.npy", axes="CYX")
        shown.append(image)
        first.append(with_1)
        second.append(with_2)
    bank = build_bank(model, shown, folder / "attributes.bank", layer="features")
    assert len(bank) == 9 * images
    return bank, np.concatenate(first), np.concatenate(second)


def attribute_model(seed: int = 0) -> SegmentationModel:
    """The model of :class:`Attributes`."""
    return wrap(Attributes(seed), channels=3)
