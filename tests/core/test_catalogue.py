"""The catalogue: found by looking at folders, loaded when asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seglens.core.catalogue import METHODS
from seglens.core.errors import ModelMismatch, UnknownName
from seglens.core.method import Method


def test_a_name_nobody_knows_gets_the_nearest():
    with pytest.raises(UnknownName) as caught:
        METHODS["oclusion"]
    assert "oclusion" in caught.value.what
    assert "Did you mean occlusion?" in caught.value.fix


def test_names_come_from_files_and_families_from_folders():
    for name in METHODS:
        cls = METHODS[name]
        assert issubclass(cls, Method)
        assert cls.name == name
        assert cls.family == METHODS.family_of(name)


def test_an_entry_point_that_holds_no_method_is_told(monkeypatch):
    monkeypatch.setattr(METHODS, "_found", {"broken": "json:JSONDecoder"})
    with pytest.raises(ModelMismatch, match="json:JSONDecoder"):
        METHODS["broken"]


def test_listing_and_values_need_no_torch():
    code = """
import sys, seglens
names = list(seglens.METHODS)
assert "occlusion" in names
seglens.Target("cell"), seglens.Image, seglens.Run(), [seglens.METHODS.family_of(n) for n in names]
heavy = {"torch", "napari", "qtpy", "skimage", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
