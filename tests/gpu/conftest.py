"""The GPU of the tests in here: a real one, or, to find on any machine what forgets a device, one that is pretended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from elsewhere import elsewhere
from seglens.engine import artefacts, cache, reach

NONE = "no CUDA device answers to this PyTorch"


@pytest.fixture
def cuda() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip(NONE)
    return torch.device("cuda")


@pytest.fixture(params=["cuda", "pretended", "without float64"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A GPU, real and pretended, also one that has no float64, as Apple's; where there is one nothing is pretended."""
    if request.param == "cuda":
        yield request.getfixturevalue("cuda")
        return
    if torch.cuda.is_available():
        pytest.skip("there is a real one")
    with elsewhere("cuda" if request.param == "pretended" else "mps") as where:
        yield where


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], None]:
    """Forgets what was found out on another device: scores, reach, what methods prepared."""

    def now() -> None:
        monkeypatch.setenv("SEGLENS_HOME", str(tmp_path_factory.mktemp("home")))
        cache.clear()
        artefacts.clear()
        reach._KNOWN.clear()

    now()
    return now
