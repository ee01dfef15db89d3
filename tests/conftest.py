"""Nobody's remembered models are read or changed by a test, and no score is known from another test."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory):
    before = os.environ.get("SEGLENS_HOME")
    os.environ["SEGLENS_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    if before is None:
        os.environ.pop("SEGLENS_HOME")
    else:
        os.environ["SEGLENS_HOME"] = before


@pytest.fixture(autouse=True)
def _forget():
    from seglens.engine import cache

    cache.clear()
