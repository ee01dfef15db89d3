"""A network at rest: put back after the last who uses it, and what is found out once holds until the question ends."""

from __future__ import annotations

import threading

import pytest
import torch

from hand import Deep, wrap
from seglens.engine.fast import at_rest
from seglens.models.rest import remembered
from seglens.models.segmentation import ROW, SegmentationModel, checksum, quiet
from seglens.models.tiled import TiledModel


def test_put_back_after_the_last_of_two_threads():
    net = Deep().train()
    net.head.weight.requires_grad_(False)
    asked = [p.requires_grad for p in net.parameters()]
    inside, done = threading.Event(), threading.Event()

    def use():
        with quiet(net):
            inside.set()
            done.wait(30)

    with quiet(net):
        other = threading.Thread(target=use)
        other.start()
        inside.wait(30)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    done.set()
    other.join()
    assert all(m.training for m in net.modules())
    assert [p.requires_grad for p in net.parameters()] == asked


def test_found_out_once_in_a_question_and_again_in_the_next():
    net, asked = Deep(), []

    def find():
        asked.append(1)
        return len(asked)

    assert [remembered(net, "it", find) for _ in range(2)] == [1, 2]
    model = wrap(net)
    with at_rest(model):
        assert [remembered(net, "it", find) for _ in range(2)] == [3, 3]
        with quiet(net):
            assert remembered(net, "it", find) == 3
        with at_rest(model):
            assert remembered(net, "it", find) == 4
    assert remembered(net, "it", find) == 5


def added(weight):
    weight.data[0, 0, 0, 0] += 1e-3


def swapped(weight):
    flat = weight.data.view(-1)
    flat[[0, 5]] = flat[[5, 0]]


def by_numpy(weight):
    weight.detach().numpy()[-1, -1, -1, -1] *= 1.001


@pytest.mark.parametrize("change", [added, swapped, by_numpy])
@pytest.mark.parametrize("size", [3, 3 * ROW])
def test_a_change_in_place_shows_between_two_questions(change, size):
    net = torch.nn.Conv2d(1, size, 3)
    model = SegmentationModel(net, wrap(Deep()).spec)
    with at_rest(model):
        before = model.fingerprint()
        assert TiledModel(model, 32).fingerprint() == before
    assert model.fingerprint() == before
    change(net.weight)
    with at_rest(model):
        assert model.fingerprint() != before


def test_sums_tell_which_bytes_changed_places():
    values = [torch.randint(256, (n,), dtype=torch.uint8) for n in (5, ROW, 7 * ROW + 12)]
    told = {checksum(values)}
    for value in values:
        value[[0, 1]] = value[[1, 0]] + torch.tensor([0, 1], dtype=torch.uint8)
        told.add(checksum(values))
    whole = torch.cat(values)
    told.add(checksum([whole[n:] for n in (0, 3)]))
    assert len(told) == 5
    assert checksum([]) == b""
