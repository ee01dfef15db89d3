"""What LRP knows of signs without looking: nothing changes, but that it need not look."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rule_nets import back
from seglens.engine.rules import COMPOSITES, relevance
from seglens.engine.rules.steps import Step


class Signs(nn.Module):
    """Convolutions of what a rectifier answered, and of what became of it since."""

    def __init__(self, how) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.one, self.two = how, nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.two(self.how(F.relu(self.one(x))))


def written(a):
    b = torch.zeros_like(a)
    b[:, :2] = a[:, :2] - 1
    b[:, 2:] = a[:, 2:]
    return b


HOWS = {
    "as it is": lambda a: a,
    "pooled": lambda a: F.max_pool2d(a, 3, 1, 1),
    "joined": lambda a: torch.cat([a[:, :2], F.avg_pool2d(a[:, 2:], 3, 1, 1)], 1),
    "moved in place": lambda a: a.sub_(0.2),
    "a part in place": lambda a: (a[:, 1:3].sub_(1), a)[1],
    "written part by part": written,
    "joined with less": lambda a: torch.cat([a[:, :2], torch.full_like(a[:, 2:], -1.0)], 1),
    "turned": lambda a: -a,
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("rules", ["z-plus", "alpha2-beta1"])
def test_what_is_known_of_signs_changes_nothing(how, rules, monkeypatch):
    x = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    net = Signs(HOWS[how])
    found, _ = back(net, x, COMPOSITES[rules])
    monkeypatch.setattr(relevance, "ABOVE", frozenset())
    wanted, tape = back(net, x, COMPOSITES[rules])
    assert not tape.tags.get("positive")
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(("how", "known"), [("as it is", True), ("pooled", True), ("joined", True), ("turned", False),
                                            ("moved in place", False), ("a part in place", False)])  # fmt: skip
def test_what_a_rectifier_answered_is_known_to_be_positive(how, known):
    x = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    _, tape = back(Signs(HOWS[how]), x, COMPOSITES["z-plus"])
    last = [s for s in tape.steps if isinstance(s, Step) and s.name == "convolution"][-1]
    assert tape.tagged("positive", last.reads[0].cell) == known
