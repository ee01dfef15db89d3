"""Operations that keep little for the way back: torch's own gradients to the last bit, and a peak that comes down."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hand import wrap
from seglens.core.run import Run
from seglens.engine import fast, lighter
from seglens.engine.folding import lean
from seglens.engine.gradients import forward_backward

CASES = {
    "convolution": (2, lambda x, w: F.conv2d(x, w, None, 2, 1)),
    "positional": (2, lambda x, w: F.conv2d(x, w, torch.ones(4), (1, 2), (1, 0), (2, 1), 1)),
    "named": (2, lambda x, w: F.conv2d(x, w, bias=torch.ones(4), stride=2, dilation=2)),
    "padded by name": (2, lambda x, w: F.conv2d(x, w, padding="same")),
    "grouped": (2, lambda x, w: F.conv2d(x, w[:, :2], groups=2)),
    "volume": (3, lambda x, w: F.conv3d(x, w, padding=1)),
    "line": (1, lambda x, w: F.conv1d(x, w, padding=1)),
    "transposed": (2, lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1)),
    "transposed, named": (2, lambda x, w: F.conv_transpose2d(x, w, stride=3, output_padding=(1, 0), dilation=2)),
    "transposed volume": (3, lambda x, w: F.conv_transpose3d(x, w, stride=2)),
    "relu": (2, lambda x, w: F.relu(x * 2) + torch.relu(x) + (x * 3).relu()),
    "relu in place": (2, lambda x, w: F.relu(x * 2, inplace=True) + torch.relu_(x * 1) + (x * 3).relu_()),
    "max pool": (2, lambda x, w: F.max_pool2d(x, 2)),
    "max pool, overlapping": (2, lambda x, w: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)),
    "max pool of torch": (2, lambda x, w: torch.max_pool2d(x, (2, 3), dilation=(1, 2))),
    "max pool of volumes": (3, lambda x, w: F.max_pool3d(x, (1, 2, 2))),
    "max pool with places": (2, lambda x, w: F.max_pool2d(x, 2, return_indices=True)[0]),
    "one picture": (2, lambda x, w: F.max_pool2d(F.conv2d(x[0], w).relu(), 2)),
}


class Only(torch.overrides.TorchFunctionMode):
    """The operations alone, without batch norms folded."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in lighter.CONVOLUTIONS | lighter.TRANSPOSED:
            bias = kwargs.pop("bias", None) if len(args) < 3 else args[2]
            return lighter.convolved(func, args[0], args[1], bias, args[3:], kwargs)
        return lighter.lighter(func, args, kwargs)


def back(function, x, weight, last=False):
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim) if last else None
    leaf = (x.contiguous(memory_format=layout) if layout else x.clone()).requires_grad_()
    out = function(leaf, weight)
    (gradient,) = torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum(), leaf)
    return out.detach(), gradient


@pytest.mark.parametrize("last", [False, True], ids=["plain layout", "channels last"])
@pytest.mark.parametrize("name", CASES)
def test_answers_and_gradients_are_torchs_own(name, last):
    dims, function = CASES[name]
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, *(12, 10, 8)[-dims:]), torch.randn(4, 4, *(3,) * dims)
    expected = back(function, x, weight, last)
    with Only():
        found = back(function, x, weight, last)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_weights_that_learn_are_left_to_torch():
    x, weight = torch.randn(1, 4, 8, 8, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    with Only():
        out = F.conv2d(x, weight)
    assert torch.autograd.grad(out.sum(), weight)[0].abs().sum() > 0


def test_a_graph_that_goes_on_behind_an_operation_in_place_is_refused_as_by_torch():
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    with Only(), pytest.raises(RuntimeError, match="in-place"):
        F.relu(x, inplace=True)


class Chain(nn.Module):
    """Eight convolutions and ReLUs of one width."""

    def __init__(self) -> None:
        """Weights by a seed."""
        super().__init__()
        torch.manual_seed(0)
        widths = [1, *(16,) * 8]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        """(N, 1, H, W) to (N, 2, H, W)."""
        for conv in self.convs:
            x = torch.relu(conv(x))
        return self.head(x)


def test_a_gradient_takes_little_more_than_the_forward_pass(monkeypatch):
    model, x = wrap(Chain()), torch.rand(1, 1, 64, 64)
    layer = 16 * 64 * 64 * 4

    def spent():
        saved = {}

        def pack(t):
            saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
        with fast.at_rest(model), lean(model), fast.Peak() as peak, hooks:
            forward_backward(model, x, lambda logits: logits[:, 1].flatten(1).sum(1), Run())
        return peak.bytes, sum(saved.values())

    # eight masks of a byte a value are two layers; a layer, its ReLU and one in the making are three
    peak, saved = spent()
    assert peak < 6 * layer
    assert saved < layer
    monkeypatch.setattr(lighter, "DEVICES", {})
    assert spent()[1] > 8 * layer
