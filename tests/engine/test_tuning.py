"""Layout and batch: tried out where it pays, remembered, within the memory; memory is given back."""

from __future__ import annotations

import json

import torch

from hand import Deep, wrap
from seglens.core.places import home
from seglens.core.run import Run
from seglens.engine import fast, tuning


def chosen(model, run, passes=1000, side=160, peak=1000):
    calls = []

    def logits(x):
        calls.append(tuple(x.shape))
        return model.logits(x)

    return tuning.choose(model, logits, torch.randn(1, 1, side, side), peak, passes, run), calls


def test_measured_once_and_remembered(monkeypatch):
    model = wrap(Deep(seed=11))
    first, calls = chosen(model, Run())
    assert {c[0] for c in calls} >= {1, 4}
    assert first.batch in {c[0] for c in calls}
    assert chosen(model, Run()) == (first, [])
    monkeypatch.setattr(tuning, "_known", {})
    assert chosen(model, Run()) == (first, [])
    files = list((home() / "speed").iterdir())
    assert any(json.loads(f.read_text()) == {"arranged": first.arranged, "batch": first.batch} for f in files)


def test_trying_takes_a_small_part_of_the_work():
    for passes in (100, 256, 1000):
        model = wrap(Deep(seed=20 + passes))
        sent = sum(c[0] for c in chosen(model, Run(), passes=passes)[1])
        # the first setting is tried whatever it takes
        assert 5 <= sent <= max(5, 0.05 * passes)


def test_not_where_it_does_not_pay_or_was_asked_for():
    model = wrap(Deep(seed=12))
    assert chosen(model, Run(), passes=10)[1] == []
    assert chosen(model, Run(), side=32)[1] == []
    assert chosen(model, Run(batch=3)) == (tuning.Setting(True, 3), [])


def test_what_was_remembered_still_fits_the_memory():
    model = wrap(Deep(seed=13))
    chosen(model, Run())
    assert chosen(model, Run(memory=2000))[0].batch == 1


def test_layout_keeps_the_values():
    x = torch.randn(2, 3, 5, 7)
    y = torch.randn(2, 3, 4, 5, 7)
    assert torch.equal(fast.arranged(x), x)
    assert torch.equal(fast.arranged(y), y)
    assert fast.arranged(x).stride()[1] == fast.arranged(y).stride()[1] == 1


def test_channels_lie_together_on_a_gpu_only_for_half_precision(monkeypatch):
    there = torch.device("cuda")
    assert fast.layout(there, 4) == fast.layout(torch.device("mps"), 5) == torch.contiguous_format
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    assert fast.layout(there, 4) == torch.channels_last
    assert fast.layout(there, 5) == torch.channels_last_3d


def test_kept_memory_counts_its_users():
    before, model = fast._users, wrap(Deep())
    with fast.kept_memory(model), fast.kept_memory(model):
        assert fast._users == before + (2 if fast._glibc() is not None else 0)
    assert fast._users == before
    model.device = torch.device("cuda")
    with fast.kept_memory(model):
        assert fast._users == before
