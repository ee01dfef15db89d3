"""The GPU that is not there finds what a GPU would refuse, and lets through what it would not."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from elsewhere import elsewhere, is_away
from hand import Deep

MIXED = {
    "two images": lambda far, near: far + near,
    "a number that was left there": lambda far, near: near * far.sum(),
    "written into": lambda far, near: near.add_(far),
    "a mask": lambda far, near: torch.where(near > 0, far, far),
    "joined": lambda far, near: torch.cat([far, near]),
    "a kernel": lambda far, near: F.conv2d(far, near),
    "an index": lambda far, near: near[far > 0],
    "numpy": lambda far, near: np.asarray(far),
    "numpy by name": lambda far, near: far.detach().numpy(),
    "dice of the CPU": lambda far, near: torch.rand(3, device=far.device, generator=torch.Generator()),
    "dice for what lies there": lambda far, near: far.normal_(generator=torch.Generator()),
    "through a device that was kept": lambda far, near: torch.zeros(1, 1, 3, 3, device=far.device) + near,
    "behind a gradient": lambda far, near: torch.autograd.grad(far.requires_grad_().sum(), far)[0] + near,
    "a new one like it": lambda far, near: far.new_ones(1, 1, 3, 3) + near,
    "new values beside it": lambda far, near: far.new_tensor([1.0]) + near,
}
ALLOWED = {
    "a single number": lambda far, near: far * torch.tensor(2.0),
    "copied into": lambda far, near: near.copy_(far).numpy(),
    "a part is set": lambda far, near: near.__setitem__((0, 0), far[0, 0]),
    "an index from the CPU": lambda far, near: far[near > 0],
    "brought over": lambda far, near: (far.cpu() + near).numpy(),
    "sent": lambda far, near: far + near.to(far) + near.to(far.device) + near.to("cuda") + near.to(device=far.device),
    "read": lambda far, near: float(far.sum()) + far.flatten().tolist()[0],
    "made there": lambda far, near: far + torch.zeros(3, device=far.device) + torch.full_like(far, 2),
    "what comes back": lambda far, near: torch.autograd.grad(far.requires_grad_()[0, 0, 1:].sum(), far)[0] + far,
}


@pytest.mark.parametrize("name", list(MIXED))
def test_what_a_gpu_refuses_is_found(name):
    with elsewhere() as device, pytest.raises((RuntimeError, TypeError), match=r"device|cuda"):
        MIXED[name](torch.ones(1, 1, 3, 3).to(device), torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("name", list(ALLOWED))
def test_what_a_gpu_does_is_let_through(name):
    with elsewhere() as device:
        ALLOWED[name](torch.ones(1, 1, 3, 3).to(device), torch.ones(1, 1, 3, 3))


def test_models_and_their_gradients_are_there_and_afterwards_all_is_as_before():
    net = Deep()
    before = torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.device
    with elsewhere() as device:
        net.to(device)
        assert all(p.device == device and p.is_cuda for p in copy.deepcopy(net).parameters())
        x = torch.rand(1, 1, 8, 8, device=device, requires_grad=True)
        with pytest.raises(RuntimeError, match="same device"):
            net(x.detach().cpu())
        net(x).sum().backward()
        assert is_away(x.grad)
        assert all(is_away(p.grad) for p in net.parameters())
        net.to("cpu")
        assert not any(is_away(p) for p in net.parameters())
    assert (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.device) == before
    assert net(torch.rand(1, 1, 8, 8)).device.type == "cpu"
