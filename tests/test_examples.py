"""The examples are short, and they run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# What a person finds afterwards, and a part of what was said.
ANSWERS = {
    "batch_of_files": ("objects.csv", "14 objects of 2 images"),
    "compare_methods": ("compared.png", "Seg-Grad-CAM"),
    "explain_one_object": ("why-infected/record.json", "a bright ring and no cell"),
    "own_model": (None, "22 objects"),
}


@pytest.fixture
def example(request, tmp_path, monkeypatch):
    """The path of an example, with an empty folder to run in."""
    path = EXAMPLES / f"{request.param}.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", [str(path)])
    return path


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(ANSWERS)


@pytest.mark.parametrize("example", ANSWERS, indirect=True)
def test_runs(example, tmp_path, capsys):
    file, told = ANSWERS[example.stem]
    runpy.run_path(str(example), run_name="__main__")
    assert told in capsys.readouterr().out
    assert file is None or (tmp_path / file).stat().st_size > 0


@pytest.mark.parametrize("example", ANSWERS, indirect=True)
def test_is_short(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 40
