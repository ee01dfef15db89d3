"""One set of model files and one fresh process for all tests of this folder: importing torch takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import Made, everything


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's remembered trust is read or changed by a test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SEGLENS_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Model files by name."""
    return everything(tmp_path_factory.mktemp("models"))
