"""A dock in a real viewer, and a home of its own for every test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QThreadPool
from viewer_help import Driver


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path / "home"))


@pytest.fixture
def drive(make_napari_viewer: Any, qtbot: Any) -> Iterator[Callable[..., Driver]]:
    """Makes a viewer with the dock; the engine is loaded."""
    from seglens.app.napari.dock import SegLensDock

    made: list[Driver] = []

    def make(**kwargs: Any) -> Driver:
        viewer = make_napari_viewer(**kwargs)
        dock = SegLensDock(viewer)
        viewer.window.add_dock_widget(dock, name="SegLens", area="right")
        driver = Driver(viewer, dock, qtbot)
        driver.wait(lambda: driver.session.engine.ready, 60_000)
        made.append(driver)
        return driver

    yield make
    for driver in made:
        driver.dock.jobs.stop_all()
    QThreadPool.globalInstance().waitForDone(10_000)
    qtbot.wait(20)


@pytest.fixture
def gallery_dock(make_napari_viewer: Any, qtbot: Any) -> Iterator[Callable[..., Any]]:
    """Makes a viewer with the prototype gallery."""
    from gallery_help import GalleryDriver

    made: list[GalleryDriver] = []

    def make() -> GalleryDriver:
        made.append(GalleryDriver(make_napari_viewer(show=True), qtbot))
        return made[-1]

    yield make
    for driver in made:
        driver.dock.stop()
    QThreadPool.globalInstance().waitForDone(10_000)
    qtbot.wait(20)
