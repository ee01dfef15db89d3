"""Batch norms that a convolution takes over: the same answers, nothing left behind."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet, SegResNet
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hand import small_image, wrap
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.folding import lean
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import quiet
from seglens.session import explain

CLASSES = ("background", "cell", "other")


class Counting(TorchDispatchMode):
    """How often batch norm runs."""

    def __init__(self):
        super().__init__()
        self.norms = self.pads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.norms += "batch_norm" in name
        self.pads += "pad" in name
        return func(*args, **(kwargs or {}))


class Functional(nn.Module):
    """No modules of norm; grouped, without bias, transposed in groups."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.b = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.c = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.d = nn.Conv2d(6, 3, 2, stride=2)
        for name, size in (("m", 4), ("n", 6)):
            self.register_buffer(f"{name}_mean", torch.randn(size))
            self.register_buffer(f"{name}_var", torch.rand(size) + 0.5)

    def forward(self, x):
        x = F.batch_norm(self.a(x), self.m_mean, self.m_var)
        x = self.b(F.relu(x))
        return self.d(F.batch_norm(self.c(x), self.n_mean, self.n_var, None, torch.ones(6)).relu_())


class HeardTwice(nn.Module):
    """The convolution's own answer is used as well: nothing can be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.conv(x)
        return self.head(x + self.norm(x))


class Shared(nn.Module):
    """One convolution before two norms."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(1, 3, 1)
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(self.head(x)))))


NETWORKS = {
    "ours": (lambda: UNet(1, 3, (4, 8, 8)), 2),
    "ours 3-D": (lambda: UNet(1, 3, (4, 8), dims=3), 3),
    "basic": (lambda: BasicUNet(2, 1, 3, features=(8, 8, 16, 16, 32, 8), norm="batch"), 2),
    "basic 3-D": (lambda: BasicUNet(3, 1, 3, features=(4, 4, 8, 8, 8, 4), norm="batch"), 3),
    "functional": (Functional, 2),
}
OTHERS = {
    "heard twice": (HeardTwice, 2),
    "shared": (Shared, 2),
    "norm first": (lambda: SegResNet(2, in_channels=1, out_channels=3, init_filters=8, norm="batch"), 2),
}


def network(make, dims):
    """Statistics and weights that are not those of a fresh norm."""
    torch.manual_seed(0)
    module = make()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.uniform_(0.5, 1.5)
            m.bias.data.normal_()
    return wrap(module, dims=dims, classes=CLASSES, divisor=16)


def answers(model, x):
    """Without and with; and how often norms ran with."""
    with quiet(model.module), torch.inference_mode():
        plain = model.logits(x)
        with lean(model), Counting() as count:
            folded = model.logits(x)
    return plain, folded, count


@pytest.mark.parametrize("name", NETWORKS)
def test_no_norm_runs_and_the_answer_is_the_same(name):
    make, dims = NETWORKS[name]
    plain, folded, count = answers(network(make, dims), torch.randn(2, 1, *(48, 32, 32)[:dims]))
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert count.norms == count.pads == 0


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_folded_is_left(name):
    make, dims = OTHERS[name]
    plain, folded, count = answers(network(make, dims), torch.randn(2, 1, *(48, 32, 32)[:dims]))
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert count.norms > 0


def test_pads_that_are_needed_stay():
    # 40 pixels are padded to 48, and inside the network to fit what comes from above
    plain, folded, count = answers(network(*NETWORKS["basic"]), torch.randn(1, 1, 40, 40))
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert count.pads > 0


def test_weights_that_change_are_heard():
    model = network(*NETWORKS["ours"])
    x = torch.randn(1, 1, 32, 32)
    before = answers(model, x)[1]
    with torch.no_grad():
        for m in model.module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean += 1
    plain, folded, _ = answers(model, x)
    assert float((folded - before).abs().max()) > 1e-2
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    # tensors of others in the place of those that were there
    model.module.load_state_dict(copy.deepcopy(model.module.state_dict()), assign=True)
    for m in model.module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean = m.running_mean - 2
    plain, folded, _ = answers(model, x)
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_gradients_pass():
    model = network(*NETWORKS["basic"])
    found = []
    for folding in (False, True):
        x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        with quiet(model.module):
            if folding:
                with torch.inference_mode(), lean(model):
                    pass  # what is made here must not be useless for graphs
                with lean(model):
                    model.logits(x)[:, 1].sum().backward()
            else:
                model.logits(x)[:, 1].sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5 * float(found[0].abs().max()))
    assert all(p.grad is None for p in model.module.parameters())


def test_a_layer_that_is_looked_at_answers_as_always():
    model = network(*NETWORKS["ours"])
    conv = next(m for m in model.module.modules() if isinstance(m, nn.Conv2d))
    seen = []
    handle = conv.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    x = torch.randn(1, 1, 32, 32)
    with quiet(model.module), torch.inference_mode():
        model.logits(x)
        with lean(model, conv):
            model.logits(x)
    handle.remove()
    torch.testing.assert_close(seen[-1], seen[0], rtol=0, atol=1e-6)


def test_other_threads_and_later_calls_are_not_touched():
    model = network(*NETWORKS["ours"])
    x = torch.randn(1, 1, 32, 32)

    def count():
        with Counting() as counting, torch.inference_mode():
            model.module(x)
        return counting.norms

    with quiet(model.module):
        usual = count()
        assert usual > 0
        with lean(model), ThreadPoolExecutor(1) as pool:
            assert pool.submit(count).result() == usual
            assert count() == 0
        assert count() == usual
    assert not any(m._forward_hooks for m in model.module.modules())


@pytest.mark.parametrize(("method", "values"), [("occlusion", {"window": 9, "stride": 9}), ("seg-ablation-cam", {})])
def test_explanations_are_the_same_with_and_without(method, values):
    model = network(*NETWORKS["ours"])
    convolutions = [n for n, m in model.module.named_modules() if isinstance(m, nn.Conv2d)]
    layer = {"layer": convolutions[-3]} if method == "seg-ablation-cam" else {}
    painted = np.zeros((45, 48), bool)
    painted[10:30, 12:40] = True
    told = [
        explain(
            method,
            small_image(side=45),
            model,
            Target("cell", Painted(painted)),
            run=Run(plain=plain),
            **values,
            **layer,
        )
        for plain in (True, False)
    ]
    one, two = (np.concatenate([e.map.data.ravel(), *e.tables[0].columns.values()]) for e in told)
    assert one.any()
    # what windows do to random weights is small: rounding is that of the logits
    score = abs(told[0].record.target["resolved"]["score"])
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-7 * score)
