"""Methods that score copies: the loop, what is shown on the way, and when it ends."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import seglens
from hand import Linear, small_image, wrap
from seglens.core.explanation import Explanation, Layer
from seglens.core.run import Run
from seglens.core.target import Target
from seglens.engine.perturb import Covered, windows
from seglens.engine.resolve import resolve
from seglens.engine.scored import Drops, ScoredCopies, Scores

DOCS = Path(__file__).resolve().parents[2] / "docs"


class Enough:
    """Has enough after some scores, and an answer from every second step."""

    def __init__(self, most):
        self.most, self.fed, self.steps = most, [], 0

    @property
    def ready(self):
        return self.steps % 2 == 0

    @property
    def done(self):
        return len(self.fed) >= self.most

    def feed(self, which, scores):
        self.steps += 1
        self.fed += which.tolist()


class Windows(ScoredCopies):
    """Covers windows; says how many it has heard of."""

    counted = "panes"

    def copies(self, case):
        return Covered(case.x, case.fill("mean"), windows(case.shape, 4, 4))

    def answer(self, case, copies, course):
        known = int((~course.values.isnan()).sum())
        return Explanation((Layer("known", "heat", np.full(case.shape, known)),), text=str(known))


class Impatient(Windows):
    """The same, until it has twenty."""

    def course(self, case, copies):
        return Enough(20)

    def answer(self, case, copies, course):
        return Explanation(text=str(len(course.fed)))


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr("seglens.core.run.PAUSE", 0.0)
    shown, told = [], []
    run = Run(
        batch=4, plain=True, on_partial=lambda e: shown.append(int(e.text)), on_progress=lambda *p: told.append(p)
    )
    return resolve(small_image(), wrap(Linear(1, 2, width=3)), Target(1), run), shown, told


def test_all_copies_are_scored_and_shown_on_the_way(asked):
    case, shown, told = asked
    method = Windows()
    count = len(method.copies(case))
    assert method.run(case).text == str(count)
    assert shown == [*range(4, count, 4), count]
    assert told[-1] == (count, count, "panes")
    assert method.passes(case)[1] == count


def test_what_is_not_needed_is_not_scored(asked):
    case, shown, _ = asked
    before = case.run.cost.forwards
    assert Impatient().run(case).text == "20"
    assert case.run.cost.forwards == before + 20
    assert shown == [8, 16]  # every second step, and not what is the answer anyway


def test_scores_are_not_numbers_and_drops_are_none_until_they_come():
    scores, drops = Scores(3), Drops(3, 5.0)
    for course in (scores, drops):
        course.feed(torch.tensor([2, 0]), torch.tensor([1.0, 6.0], dtype=torch.float64))
    assert scores.values.isnan().tolist() == [False, True, False]
    assert scores.values[[0, 2]].tolist() == [6.0, 1.0]
    assert drops.values.tolist() == [-1.0, 0.0, 4.0]


def test_the_base_is_no_method_itself():
    assert not {"scored", "-shared", "channels", ""} & set(seglens.METHODS)


def test_the_example_in_the_documentation_is_occlusion(asked):
    case, _, _ = asked
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "add-a-method.md").read_text(encoding="utf-8"), re.S)
    (block,) = [b for b in blocks if "ScoredCopies" in b]
    names = {"__name__": __name__}
    exec(compile(block, "add-a-method.md", "exec", dont_inherit=True), names)
    case.run.on_partial = None
    mine = names["PlainOcclusion"](window=6, stride=3).run(case)
    theirs = seglens.METHODS["occlusion"](window=6, stride=3).run(case)
    np.testing.assert_array_equal(mine.map.data, theirs.map.data)
    assert np.abs(mine.map.data).max() > 0
