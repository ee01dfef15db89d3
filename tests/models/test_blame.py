"""What a network raises is told as its own; memory, cancelling and our own errors pass as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hand import Deep, wrap
from seglens.core.errors import Cancelled, ModelMismatch, OutOfMemory, SegLensError
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.models.blame import blaming
from seglens.models.layers import layers
from seglens.session import explain, segment
from seglens.session_live import LiveQuestion

IMAGE = Image(np.random.default_rng(0).random((20, 24), np.float32), "YX")
ALL = Target("cell", Painted(np.ones((20, 24), np.uint8)))


class Failing(Deep):
    """Raises after some passes."""

    def __init__(self, error: Exception, after: int = 0) -> None:
        super().__init__()
        self.error, self.left = error, after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().forward(x)


JOBS: dict[str, Callable[[Any], Any]] = {
    "explain": lambda model: explain("vanilla-gradient", IMAGE, model),
    "segment": lambda model: segment(IMAGE, model),
    "live": lambda model: LiveQuestion(IMAGE, model).warm(),
    "layers": layers,
}


@pytest.mark.parametrize("job", JOBS)
def test_it_names_network_kind_and_text(job: str) -> None:
    error = ImportError("No module named 'gone'\nmore lines", name="gone")
    with pytest.raises(ModelMismatch) as caught:
        JOBS[job](wrap(Failing(error)))
    assert caught.value.what == "The network hand failed on this image with ImportError (No module named 'gone')."
    assert caught.value.fix.startswith("Install gone")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_also_in_later_passes(after: int) -> None:
    with pytest.raises(ModelMismatch, match=r"with KeyError \('skip'\)"):
        explain("occlusion", IMAGE, wrap(Failing(KeyError("skip"), after)), ALL, window=6)


@pytest.mark.parametrize(
    "error", [Cancelled(), OutOfMemory("It is full.", fix="Buy."), SegLensError("No.", fix="Yes.")]
)
def test_our_own_errors_pass(error: SegLensError) -> None:
    for job in ("explain", "segment", "layers"):
        with pytest.raises(SegLensError) as caught:
            JOBS[job](wrap(Failing(error)))
        assert type(caught.value) is type(error)
        assert "failed" not in caught.value.what


def test_memory_is_no_fault_of_the_network() -> None:
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        for job in ("explain", "segment"):
            with pytest.raises(OutOfMemory):
                JOBS[job](wrap(Failing(error)))


def test_bugs_of_ours_stay_visible() -> None:
    model = wrap(Deep())
    with pytest.raises(ZeroDivisionError), blaming(model):
        _ = 1 / 0
    # and what a hook of ours raises while the network runs is none of its doing
    namespace: dict[str, Any] = {"__name__": "seglens.engine.somewhere"}
    exec("def hook(*_):\n    raise KeyError('ours')", namespace)
    handle = model.module.head.register_forward_hook(namespace["hook"])
    with pytest.raises(KeyError, match="ours"), blaming(model):
        model.module(torch.zeros(1, 1, 8, 8))
    handle.remove()
