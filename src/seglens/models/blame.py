"""Errors that a network's own code raises, told as its own: they are none of ours, and no bug of SegLens."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from seglens.core.errors import ModelMismatch, SegLensError
from seglens.models.device import is_out_of_memory
from seglens.models.segmentation import SegmentationModel

OURS = "seglens."
HAND_ON = ("__torch_function__", "__torch_dispatch__")
NETWORKS = "seglens.models."  # what wraps networks of others, and networks that come along


@contextmanager
def blaming(model: SegmentationModel) -> Iterator[None]:
    """Turn what the network raises into :class:`~seglens.core.errors.ModelMismatch`.

    Errors of SegLens, of memory, and of our own code stay what they are. Looking costs nothing before something fails.

    Raises:
        ModelMismatch: the network cannot run on this input, with what it said.
    """
    try:
        yield
    except SegLensError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or not _raised_by(model, error):
            raise
        lines = str(error).strip().splitlines()
        said = f" ({lines[0].strip().rstrip('.')})" if lines and lines[0].strip() else ""
        raise ModelMismatch(
            f"The network {model.spec.name} failed on this image with {type(error).__name__}{said}.", fix=_fix(error)
        ) from error


def _fix(error: Exception) -> str:
    if isinstance(error, ImportError):
        missing = getattr(error, "name", "")
        return f"Install {missing or 'what it needs'} where SegLens runs, then start again."
    return "Run the network alone on a part of the image to see where, and mend its code or its model.json."


def _raised_by(model: SegmentationModel, error: Exception) -> bool:
    """Whether the network was running, and none of our hooks or records of its operations raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(frame.f_locals.get("self") is model.module for frame in frames):
        return False
    # what looks at operations only hands them on, and operations themselves have no frame
    own = [f for f in frames if f.f_code.co_name not in HAND_ON and not f.f_globals.get("HANDS_ON")]
    last = str(own[-1].f_globals.get("__name__", ""))
    return not last.startswith(OURS) or last.startswith(NETWORKS)
