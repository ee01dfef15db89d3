"""Networks for the tests of backward rules, and a plain way to ask a rule about one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hand import wrap
from seglens.core.run import Run
from seglens.engine.resolve import resolve
from seglens.engine.rules.cells import Memory
from seglens.engine.rules.rescale import Rescale, pair
from seglens.engine.rules.tape import Tape


def back(network, x, rules, start=None):
    """What comes back to the input when ``start`` (default: ones) goes in at the end; and the tape."""
    tape = Tape(rules, Run())
    out = tape.record(network, x.clone())
    memory = Memory()
    memory.add(tape.answer, torch.ones_like(out) if start is None else start)
    with torch.no_grad():
        came = tape.back(memory).take(tape.source)
    return (torch.zeros_like(x) if came is None else came), tape


def multipliers(network, x, baseline, start=None):
    """DeepLift's multipliers at the input."""
    rules = Rescale()
    tape, beside = Tape(rules, Run()), Tape(rules, Run())
    out = tape.record(network, x.clone())
    beside.record(network, baseline.clone())
    pair(tape, beside)
    memory = Memory()
    memory.add(tape.answer, torch.ones_like(out) if start is None else start)
    with torch.no_grad():
        return tape.back(memory).take(tape.source)


def gradient(network, x, start=None):
    """What autograd says."""
    leaf = x.clone().requires_grad_(True)
    out = network(leaf * 1)
    (found,) = torch.autograd.grad(out, leaf, torch.ones_like(out) if start is None else start)
    return found


class Functional(nn.Module):
    """A U-Net of two levels in functions: its activation is no module, and it is used four times."""

    def __init__(self, dims: int = 2, act=F.relu, bias: bool = True, classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.pool = nn.MaxPool2d(2) if dims == 2 else nn.MaxPool3d(2)
        self.act = act
        self.one = conv(1, 4, 3, padding=1, bias=bias)
        self.two = conv(4, 6, 3, padding=1, bias=bias)
        self.up = up(6, 4, 2, stride=2, bias=bias)
        self.three = conv(8, 4, 3, padding=1, bias=bias)
        self.head = conv(4, classes, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.act(self.one(x))
        x = self.act(self.two(self.pool(skip)))
        x = self.act(self.up(x))
        return self.head(self.act(self.three(torch.cat([skip, x], 1))))


class Modular(nn.Module):
    """The same network with a module for each ReLU."""

    def __init__(self, inner: Functional, inplace: bool) -> None:
        super().__init__()
        self.inner = inner
        self.relus = nn.ModuleList(nn.ReLU(inplace=inplace) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        net, (a, b, c, d) = self.inner, self.relus
        skip = a(net.one(x))
        x = b(net.two(net.pool(skip)))
        x = c(net.up(x))
        return net.head(d(net.three(torch.cat([skip, x], 1))))


def case_of(module, image, target, run=None, **spec):
    """A resolved question to a module."""
    return resolve(image, wrap(module, **spec), target, run or Run())
