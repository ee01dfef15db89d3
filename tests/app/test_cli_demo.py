"""The demo: which nucleus, which pictures, and what it does without a screen."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from hand import Deep, wrap
from seglens.app import demo
from seglens.app.cli import main
from seglens.core.errors import MissingNeed, NoSuchRegion
from seglens.core.image import Image


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small image and model stand in for the real ones."""
    from scipy import ndimage

    data = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(64, 64, 3)), (3, 3, 0))
    image = Image((data / data.std()).astype(np.float32), "YXC", name="small")
    model = wrap(Deep(3, seed=1), channels=3, classes=("background", "nucleus"))
    monkeypatch.setattr(demo, "open_image", lambda _: image)
    monkeypatch.setattr(demo, "load_model", lambda _: model)


def test_the_nucleus_is_whole_and_central() -> None:
    objects = np.zeros((60, 60), np.int32)
    objects[0:10, 0:10] = 1  # cut off by the rim
    objects[28:40, 26:38] = 2
    objects[45:57, 45:57] = 3
    objects[31, 50] = 4  # a speck
    y, x = demo.well_visible(objects, (objects > 0).astype(np.uint8), 1)
    assert objects[y, x] == 2
    with pytest.raises(NoSuchRegion):
        demo.well_visible(objects, np.zeros((60, 60), np.uint8), 1)


def test_headless_writes_pictures_and_records(small: None, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # a second run replaces the first
        result = CliRunner().invoke(main, ["demo", "--headless", "--out", str(out)])
        assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {"overview.png", "record.json"}
    records = json.loads((out / "record.json").read_text())
    assert [r["method"] for r in records] == [*demo.OF_ONE, *demo.OF_CLASS]
    assert records[0]["target"]["region"]["kind"] == "object"
    assert records[-1]["target"]["region"]["kind"] == "predicted"
    assert str(out / "overview.png") in result.output


@pytest.mark.parametrize(
    ("environment", "platform", "there"),
    [({}, "linux", False), ({"DISPLAY": ":0"}, "linux", True), ({"WAYLAND_DISPLAY": "w"}, "linux", True),
     ({}, "darwin", True), ({}, "win32", True)],
)  # fmt: skip
def test_screens(environment: dict[str, str], platform: str, there: bool) -> None:
    assert demo.has_display(environment, platform) == there


def test_no_screen_and_no_virtual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image(np.zeros((4, 4)), "YX")
    monkeypatch.setattr(demo, "has_display", lambda: False)
    demo._show(image, None, [], None)  # type: ignore[arg-type]
    assert "install xvfb" in capsys.readouterr().err
    monkeypatch.setattr(demo, "_PLUGIN", "seglens.app.nothing")
    demo._show(image, None, [], None)  # type: ignore[arg-type]
    assert "not installed" in capsys.readouterr().err


def test_under_a_virtual_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> SimpleNamespace:
        calls.append(command)
        assert env[demo._INSIDE] == "1"
        if len(calls) == 1:
            (tmp_path / "viewer.png").write_bytes(b"x")
        return SimpleNamespace(returncode=len(calls) - 1)

    monkeypatch.setattr(demo, "has_display", lambda: False)
    monkeypatch.setattr(demo.shutil, "which", lambda _: "/bin/xvfb-run")
    monkeypatch.setattr(demo.subprocess, "run", run)
    assert demo.run_demo(headless=False, out=tmp_path) == tmp_path
    assert calls[0][0] == "/bin/xvfb-run"
    with pytest.raises(MissingNeed, match="did not start"):
        demo.run_demo(headless=False, out=tmp_path)
