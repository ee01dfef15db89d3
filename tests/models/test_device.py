"""Products in all digits while a question runs, afterwards as before; and what says that memory ran out."""

from __future__ import annotations

import threading

import pytest
import torch

from hand import Deep, small_image, wrap
from seglens.core.errors import BadParameter, NoSuchRegion
from seglens.core.run import Run
from seglens.core.target import Object, Painted, Target
from seglens.models import device
from seglens.models.device import choose_device, direct, exact, is_out_of_memory, room
from seglens.models.segmentation import quiet
from seglens.session import explain, segment

NEW = hasattr(torch.backends.cudnn, "conv")


def flags():
    """What PyTorch says about its rounding, in every way in which it can be asked."""
    told = [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]
    told += [torch.get_float32_matmul_precision()]
    return told + [owner.fp32_precision for owner in device._owners().values()]


def full():
    return not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"


@pytest.fixture(autouse=True)
def _as_before():
    before = device._rounding()
    yield
    device._set(before)


def usual():
    """As PyTorch starts."""


def rough():
    torch.set_float32_matmul_precision("medium")


def fine():
    torch.backends.cudnn.allow_tf32 = False


def finer():
    if not NEW:
        pytest.skip("this PyTorch has one setting for all")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.fp32_precision = "ieee"


@pytest.mark.parametrize("start", [usual, rough, fine, finer])
def test_off_inside_and_afterwards_as_before(start):
    start()
    before = flags()
    with quiet(Deep()):
        assert full()
        with exact():
            assert full()
        assert full()
    assert flags() == before


def test_settings_at_odds_are_left_at_odds():
    if not NEW:
        pytest.skip("this PyTorch has one setting for all")
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    with pytest.raises(RuntimeError):
        flags()
    with exact():
        assert [owner.fp32_precision for owner in device._owners().values()] == ["ieee"] * len(device._owners())
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.backends.cudnn.rnn.fp32_precision == "tf32"
    with pytest.raises(RuntimeError):
        flags()


def test_afterwards_as_before_where_the_question_fails_too():
    before, model, seen = flags(), wrap(Deep()), []
    model.module.register_forward_hook(lambda *_: seen.append(full()))
    with pytest.raises(NoSuchRegion):
        explain("vanilla-gradient", small_image(), model, Target("cell", Object(10**6)))
    assert seen
    assert all(seen)
    assert flags() == before


def test_every_pass_of_a_question_and_of_a_segmentation_is_exact():
    image, seen = small_image(), []
    model = wrap(Deep())
    model.module.register_forward_hook(lambda *_: seen.append(full()))
    segment(image, model)
    mask = torch.ones(image.space("YX"), dtype=torch.bool).numpy()
    explain("occlusion", image, model, Target("cell", Painted(mask)), window=8, stride=8)
    assert len(seen) > 2
    assert all(seen)


def test_of_two_threads_the_last_one_puts_it_back():
    before, inside, go = flags(), threading.Event(), threading.Event()

    def other():
        with exact():
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=other)
    with exact():
        thread.start()
        assert inside.wait(10)
    assert full()
    go.set()
    thread.join()
    assert flags() == before


def test_without_cudnn_for_one_and_for_two_at_once():
    """One that begins later ends later: put back by each alone, cuDNN would stay off."""
    assert torch.backends.cudnn.enabled
    one, two = direct(), direct()
    one.__enter__()
    two.__enter__()
    assert not torch.backends.cudnn.enabled
    one.__exit__(None, None, None)
    assert not torch.backends.cudnn.enabled
    two.__exit__(None, None, None)
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation after trying 6 plans"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_known_by_its_words(error, is_it):
    assert is_out_of_memory(error) == is_it


def test_what_is_free_on_a_gpu_is_asked_once_a_run(monkeypatch):
    free = [3 * 2**30, 2**30]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free.pop(0), 2**40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**21)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**20)
    run, there, here = Run(), torch.device("cuda"), torch.device("cpu")
    assert room(there, run) == room(there, run) == (3 * 2**30 + 2**20) // 2
    assert room(there, Run()) == (2**30 + 2**20) // 2
    assert room(here, run) == 2**30
    assert room(there, Run(memory=5)) == room(here, Run(memory=5)) == 5


def test_an_apple_gpu_is_for_those_who_ask(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().name == "cpu"
    assert "mps" in choose_device().why
    assert choose_device("mps").label == "Apple GPU"
    with pytest.raises(BadParameter, match="cuda"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(BadParameter, match="mps"):
        choose_device("mps")
    assert "mps" not in choose_device().why


def test_the_most_exact_numbers_of_a_device():
    t = torch.full((4, 2), 0.1)
    assert device.fine(t).dtype == torch.float64
    assert device.fine_sum(t).item() == pytest.approx(0.8, abs=1e-7)
    assert device.fine_sum(t, 1).shape == (4,)
    assert device.finest(torch.device("cuda")) == torch.float64
    assert device.finest(torch.device("mps")) == torch.float32
