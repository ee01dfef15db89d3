"""Small feature banks of hand-wired networks, built once a session for each network."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hand import context_image
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
