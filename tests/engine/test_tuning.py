"""Layout and batch: tried out where it pays, remembered, within the memory; memory is given back."""

from __future__ import annotations

import gc
import json
import mmap

import pytest
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


class Allocator:
    """The C library, whose trims are counted; an old one cannot tell what is in use."""

    def __init__(self, old: bool) -> None:
        self._libc, self._old, self.trims = fast._glibc(), old, 0

    def __getattr__(self, name):
        if self._old and name == "mallinfo2":
            raise AttributeError(name)
        return getattr(self._libc, name)

    def malloc_trim(self, pad):
        self.trims += 1
        return self._libc.malloc_trim(pad)


@pytest.fixture(params=[False, True], ids=["tells", "old"])
def allocator(request, monkeypatch):
    if fast._glibc() is None or fast._users:
        pytest.skip("needs glibc, and nobody else at work")
    made = Allocator(request.param)
    if not made._old and not hasattr(made._libc, "mallinfo2"):
        pytest.skip("this glibc does not tell what is in use")
    monkeypatch.setattr(fast, "_glibc", lambda: made)
    # what tests before this one have freed would be used again, and hide what is held here
    gc.collect()
    made._libc.malloc_trim(0)
    return made


def resident():
    return int(fast.STATM.read_text().split()[1]) * mmap.PAGESIZE


def test_freed_memory_is_given_back_once_and_not_again_at_every_look(allocator):
    size = 256 * 2**20
    with fast.kept_memory(wrap(Deep())):
        before = resident()
        held = torch.ones(size // 4)
        pinned = torch.ones(2**16)  # so that the heap cannot simply become shorter
        del held
        assert resident() - before > 0.9 * size
        for _ in range(5):
            fast.give_back(size / 2)
        assert allocator.trims == (0 if allocator._old else 1)
        if not allocator._old:
            assert resident() - before < 0.2 * size
        fast.give_back(float("inf"))
        assert allocator.trims == (0 if allocator._old else 1)
        assert float(pinned[0]) == 1
    # at the end an allocator that cannot tell gives back all of it, for good
    assert allocator.trims == 1
    assert resident() - before < 0.3 * size


def test_a_blank_tensor_has_a_shape_and_takes_no_memory():
    before = resident()
    made = fast.blank((1, 64, 1024, 1024), (2**26, 1, 2**16, 64), torch.float32, torch.device("cpu"))
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert resident() - before < 2**24
    assert fast.blank((0, 3), (3, 1), torch.float32, torch.device("cpu")).shape == (0, 3)
