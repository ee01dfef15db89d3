"""Methods that score changed copies of the image and read their answer from the scores: one loop for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from seglens.core.explanation import Explanation
from seglens.core.method import Method
from seglens.engine.case import Case
from seglens.engine.perturb import Perturbations


class Course(Protocol):
    """What is known of copies while they are scored."""

    @property
    def ready(self) -> bool:
        """Whether the scores so far make an answer that is worth showing."""

    @property
    def done(self) -> bool:
        """Whether they are enough: no further copy is scored then."""

    def feed(self, which: Tensor, scores: Tensor) -> None:
        """Take in which copies were scored (n,), and their scores (n,)."""


class Scores:
    """The simplest course: all scores, of ``count`` copies; not a number until a copy is scored."""

    ready, done = True, False

    def __init__(self, count: int) -> None:
        """Nothing is scored yet."""
        self.values = torch.full((count,), torch.nan, dtype=torch.float64)

    def feed(self, which: Tensor, scores: Tensor) -> None:
        """Keep them."""
        self.values[which] = scores


class Drops(Scores):
    """How far each copy scores below the clean image; nothing until it is scored."""

    def __init__(self, count: int, clean: float) -> None:
        """Nothing has dropped yet."""
        super().__init__(count)
        self.clean = clean
        self.values.zero_()

    def feed(self, which: Tensor, scores: Tensor) -> None:
        """Keep what they lack."""
        self.values[which] = self.clean - scores


def follow(
    case: Case, steps: Iterable[tuple[Tensor, Tensor]], course: Course, answer: Callable[[], Explanation]
) -> Explanation:
    """The answer after all steps, or enough of them; on the way, it is shown as far as it is known.

    Args:
        case: the question.
        steps: which copies were scored (n,), and their scores (n,), as the case gives them bit by bit.
        course: takes them in.
        answer: asked for what the course knows then.
    """
    for which, scores in steps:
        course.feed(which, scores)
        if course.done:
            break
        if course.ready:
            case.run.partial(answer)
    return answer()


class ScoredCopies(Method):
    """A method that scores changed copies of the image and reads its answer from the scores.

    A subclass says which copies (:meth:`copies`) and what their scores mean (:meth:`answer`). A method that stops
    early or keeps sums has a :meth:`course` of its own. Estimates, progress, cancel and answers on the way are here.

    Class attributes:
        counted: what progress counts.
    """

    counted: ClassVar[str] = "evaluations"

    def copies(self, case: Case) -> Perturbations:
        """The copies to score; the same whenever they are asked for."""
        raise NotImplementedError

    def course(self, case: Case, copies: Any) -> Course:
        """What takes in the scores of these copies."""
        return Scores(len(copies))

    def answer(self, case: Case, copies: Any, course: Any) -> Explanation:
        """The answer from what is known; asked on the way, too."""
        raise NotImplementedError

    def passes(self, case: Case) -> tuple[float, int]:
        """What scoring the copies takes, if none is left out."""
        return case.passes(self.copies(case))

    def run(self, case: Case) -> Explanation:
        """Score the copies until they are done, or enough."""
        copies = self.copies(case)
        course = self.course(case, copies)
        steps = case.score_steps(copies, self.counted)
        return follow(case, steps, course, lambda: self.answer(case, copies, course))
