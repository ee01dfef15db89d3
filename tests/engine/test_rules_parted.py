"""Rules part by part: the same map, score and books as in one piece, within the memory that is allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import small_image, wrap
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine import fast
from seglens.models.nets.unet import UNet
from seglens.session import explain

SIDE = 192
SHORT = 16 * 2**20  # bytes; a record of the whole takes several times that


def network():
    torch.manual_seed(3)
    net = UNet(1, 3, (8, 16))
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    return wrap(net, classes=("background", "cell", "other"), divisor=2)


def region():
    """Scattered over the whole image."""
    mask = np.zeros((SIDE, SIDE + 3), bool)
    mask[8:-8:7, 4:-4] = True
    mask[:, 100:120] = True
    return mask


def ask(method, memory, value="logit", **parameters):
    run = Run(memory=memory)
    target = Target("cell", Painted(region()), value)
    return explain(method, small_image(side=SIDE), network(), target, run=run, **parameters), run


@pytest.mark.parametrize("value", ["logit", "margin", "probability"])
@pytest.mark.parametrize(("method", "parameters"), [("lrp", {}), ("lrp", {"composite": "epsilon"}), ("deep-lift", {})])
def test_parts_add_up_to_the_whole(method, parameters, value):
    whole, one = ask(method, 2**34, value, **parameters)
    parted, several = ask(method, SHORT, value, **parameters)
    assert "parts" not in one.engine
    assert several.engine["parts"]["parts"] > 1
    scale = np.abs(whole.map.data).max()
    np.testing.assert_allclose(parted.map.data, whole.map.data, atol=1e-5 * scale)
    table, other = whole.tables[0].columns, parted.tables[0].columns
    for name, values in table.items():
        if isinstance(values[0], float):
            # what is left over is rounding, in one piece as in several
            np.testing.assert_allclose(other[name], values, rtol=1e-3, atol=1e-3 * np.abs(values).max())
        else:
            assert other[name] == values


@pytest.mark.parametrize("method", ["lrp", "deep-lift"])
def test_memory_stays_within_what_is_allowed(method):
    peaks = []
    for memory in (2**34, SHORT):
        with fast.Peak() as peak:
            ask(method, memory)
        peaks.append(peak.bytes)
    assert peaks[1] < SHORT < peaks[0]


def test_what_is_no_sum_stays_in_one_piece():
    _, run = ask("lrp", SHORT, "dice")
    assert "parts" not in run.engine
