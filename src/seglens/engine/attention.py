"""Attention of any network, recorded while it runs: which token reads which, and how much a target asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seglens.core.errors import MissingNeed, OutOfMemory
from seglens.core.run import Run
from seglens.engine import fast
from seglens.engine.attending import Attended
from seglens.engine.gradients import Score, guarded
from seglens.models.device import direct, room
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.tiled import TiledModel

Fold = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention of a network.

    Args:
        number: its place among all that the network weighs by a softmax.
        heads, tokens: its size.
        matrix: what was kept of its weights (heads, tokens, tokens).
    """

    number: int
    heads: int
    tokens: int
    matrix: Tensor


def attentions(
    model: SegmentationModel, x: Tensor, run: Run, fold: Fold, score: Score | None = None
) -> tuple[Attention, ...]:
    """Every attention of a network while it looks at one image, in the order in which they run.

    One forward, with a score one backward. Without a score the memory is one matrix (heads, tokens, tokens) and what
    is folded; with a score, all of them stay until the backward pass has come by.

    Args:
        model: the network; left as it was.
        x: input (1, C, *space).
        run: cancel, cost, and the memory that may be taken.
        fold: from weights (heads, tokens, tokens) to what is kept of them; with a score, it is given their gradient
            of the same shape as well, which is zero where the score does not hang on them.
        score: logits (1, K, *space) to one number, whose gradient is asked for.

    Raises:
        MissingNeed: no attention can be seen, or none in which all tokens of the image read each other.
        OutOfMemory: the matrices do not fit into ``run.memory``, or the image does not fit.
    """
    if isinstance(model, TiledModel):
        raise MissingNeed(
            f"{model.spec.name} is looked at in tiles, and each tile has an attention of its own.",
            fix="Leave out --tile (in napari: look at the image in one piece).",
        )
    run.check()
    recorder = _Recorder(model, run, fold, score)
    try:
        with guarded(model), fast.kept_memory(model):
            with quiet(model.module), torch.set_grad_enabled(score is not None), recorder:
                logits = model.logits(x.detach())
            run.cost.forwards += 1
            if score is not None:
                with torch.enable_grad():
                    recorder.ask(score(logits).sum())
                run.cost.backwards += 1
        return recorder.found()
    except _Full:
        most = room(x.device, run) / 2**30
        raise OutOfMemory(
            f"The attention of {model.spec.name} takes more than {most:.3g} GB on an image of this size: "
            "its memory grows with the square of the number of tokens.",
            fix="Choose a smaller region (View or ROI, or --crop), or allow more with seglens.Run(memory=…).",
        ) from None
    finally:
        recorder.forget()


class _Recorder(Attended):
    """Keeps what is folded of each attention, as soon as its gradient is known."""

    def __init__(self, model: SegmentationModel, run: Run, fold: Fold, score: Score | None) -> None:
        super().__init__()
        self._model, self._run, self._fold, self._score = model, run, fold, score
        self._sizes: dict[int, tuple[int, int]] = {}
        self._folded: dict[int, Tensor] = {}
        self._open: dict[int, Tensor] = {}
        self._leaves: list[Tensor] = []
        self._held = 0

    def weighed(self, number: int, weights: Tensor) -> Tensor:
        """The same weights, ready for a gradient."""
        if self._score is not None and torch.is_grad_enabled() and not weights.requires_grad:
            self._leaves.append(weights.requires_grad_())
        return weights

    def read(self, number: int, weights: Tensor) -> None:
        """Fold now, or when the gradient comes."""
        if number in self._sizes:
            return
        matrix = self._heads(weights)
        self._sizes[number] = (matrix.shape[0], matrix.shape[1])
        if self._score is None:
            self._folded[number] = self._fold(matrix.detach())
            self._held += self._folded[number].nbytes
            return
        if not weights.requires_grad:
            raise MissingNeed(
                f"{self._model.spec.name} computes its attention without gradients (checkpointing?).",
                fix="Switch checkpointing off where the network is built, or choose attention-rollout.",
            )
        self._open[number] = weights
        self._held += weights.nbytes
        self.afford(0)
        weights.register_hook(lambda gradient: self._close(number, gradient))  # type: ignore[no-untyped-call]

    def afford(self, size: int) -> None:
        """Stop before more is made than is allowed."""
        if self._held + size > room(self._model.device, self._run):
            raise _Full

    def ask(self, total: Tensor) -> None:
        """Send the gradient of the number back to every attention."""
        if self._leaves and total.requires_grad:
            torch.autograd.grad(total, self._leaves, allow_unused=True)
        for number, weights in list(self._open.items()):
            # the target does not hang on it
            self._close(number, torch.zeros_like(weights))

    def found(self) -> tuple[Attention, ...]:
        """What was kept, in the order of the network."""
        if not self._sizes:
            raise MissingNeed(
                f"{self._model.spec.name} has no attention that can be read: nothing in it is weighed by a softmax and "
                "multiplied with values.",
                fix="Choose a transformer (network segmenter, MONAI's UNETR, your own), or another method.",
            )
        return tuple(Attention(n, *sizes, self._folded[n]) for n, sizes in sorted(self._sizes.items()))

    def forget(self) -> None:
        """Let the graph go."""
        self._open.clear()
        self._leaves.clear()

    def _close(self, number: int, gradient: Tensor) -> None:
        weights = self._open.pop(number, None)
        if weights is not None:
            self._folded[number] = self._fold(self._heads(weights).detach(), self._heads(gradient).detach())

    def _heads(self, weights: Tensor) -> Tensor:
        """Weights (…, queries, keys) of one image as (heads, tokens, tokens)."""
        name, batch = self._model.spec.name, self._model.spec.batch or 1
        if weights.ndim > 4 or (weights.ndim == 4 and len(weights) != batch):
            raise MissingNeed(
                f"{name} attends within windows of {weights.shape[-1]} tokens, so which part of the image reads which "
                "is not told by its attention.",
                fix="Choose a network whose attention spans the whole image, or another method (vanilla-gradient).",
            )
        if weights.shape[-1] != weights.shape[-2]:
            raise MissingNeed(
                f"In {name} {weights.shape[-2]} tokens read {weights.shape[-1]} others: its attention is no "
                "self-attention.",
                fix="Choose a network in which the tokens of the image read each other, or another method.",
            )
        return weights[0] if weights.ndim == 4 else weights.reshape(-1, *weights.shape[-2:])


class _Full(Exception):
    """More than may be taken."""


class _Enough(Exception):
    """What was asked is known; the rest of the network need not run."""


class _Probe(Attended):
    def __init__(self, at: int, spoil: tuple[int, Tensor] | None) -> None:
        super().__init__()
        self._at, self._spoil = at, spoil
        self.lost: Tensor | None = None

    def coming(self, number: int, lost: Callable[[], Tensor]) -> bool:
        if number == self._at:
            self.lost = lost()
            raise _Enough
        return self._spoil is not None and number == self._spoil[0]

    def weighed(self, number: int, weights: Tensor) -> Tensor:
        return weights if self._spoil is None else weights.masked_fill(self._spoil[1][:, None], math.nan)


def lost_tokens(
    model: SegmentationModel, x: Tensor, at: int, run: Run, spoil: tuple[int, Tensor] | None = None
) -> Tensor:
    """Which tokens are not a number when they come to an attention, (tokens,) boolean; the rest does not run.

    Not-a-number times any weight is not a number, so this is what the structure connects, whatever the weights.

    Args:
        model: the network.
        x: input (1, C, *space), with not-a-number where its influence is looked for.
        at: :attr:`Attention.number` of the attention.
        run: cancel and cost.
        spoil: an earlier attention, and which of its tokens (tokens,) answer not-a-number.
    """
    run.check()
    probe = _Probe(at, spoil)
    try:
        with guarded(model), fast.kept_memory(model), quiet(model.module), torch.no_grad(), direct(), probe:
            model.logits(x)
    except _Enough:
        pass
    run.cost.forwards += 1
    if probe.lost is None:
        raise MissingNeed(
            f"{model.spec.name} runs another way when its input is not a number.", fix="Choose another method."
        )
    return probe.lost
