"""The folder of what methods have prepared."""

from __future__ import annotations

import os

import numpy as np
from torch import nn

from hand import wrap
from seglens.core.method import Artefact
from seglens.core.run import Run
from seglens.engine import artefacts
from seglens.engine.artefacts import Store, make_room


def kept(key, age):
    store = Store(key, Run())
    store.save(Artefact({"values": np.zeros(1000)}))
    os.utime(store.folder, (age, age))
    return store


def test_what_was_not_used_for_longest_goes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path))
    old, used, new = kept("old", 1000), kept("used", 900), kept("new", 2000)
    assert used.load() is not None  # so it is the youngest now
    size = sum(f.stat().st_size for f in new.folder.rglob("*") if f.is_file())
    monkeypatch.setattr(artefacts, "MOST", 2 * size)
    make_room(new.folder)
    assert old.load() is None
    assert used.load() is not None
    assert new.load() is not None
    monkeypatch.setattr(artefacts, "MOST", 0)
    make_room(new.folder)
    assert used.load() is None
    assert new.load() is not None


def test_layers_that_are_set_otherwise_are_another_model():
    def model(stride):
        conv = nn.Conv2d(1, 2, 3, padding=1, stride=stride)
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
        return wrap(nn.Sequential(conv))

    assert model(1).fingerprint() == model(1).fingerprint() != model(2).fingerprint()
