"""The gradient of a target at many changed copies of an image: crops, batches, memory, progress and cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor

from seglens.core.boxes import Box, around, at_box, moved, whole
from seglens.engine import fast
from seglens.engine.appetite import GUESS, Under, back_and_forth
from seglens.engine.evaluator import MANY, Evaluator
from seglens.engine.folding import lean
from seglens.engine.gradients import forward_backward, guarded
from seglens.engine.optimise import BACKWARD
from seglens.engine.perturb import Perturbations
from seglens.engine.pieces import Piece, Pieces, spread
from seglens.engine.plan import ALIKE, LARGE, WORTH
from seglens.engine.plan import field as field_of
from seglens.engine.reach import is_known
from seglens.engine.target import FrozenTarget
from seglens.models.device import free_cache, is_out_of_memory, no_memory, room

STEPS = 8  # at least so many batches, so that progress is seen and a stop is heard; CUDA is done before that matters
PIXELS = {"cpu": 2**19, "cuda": 4 * fast.GPU_PIXELS}  # of a batch; more only costs memory


@dataclass(frozen=True, eq=False)
class Sampled:
    """Some of the gradients.

    Args:
        index: which copies (n,).
        gradients: of each copy's score with respect to the copy (n, C, *box); it is zero around the box.
        scores: the target's number for each (n,), float64 on the CPU.
        box: the part of the image.
    """

    index: Tensor
    gradients: Tensor
    scores: Tensor
    box: Box


@dataclass(eq=False)
class Sampler:
    """Gradients of one target at copies of one image.

    Args:
        evaluator: model, clean input and logits, run, reach.
        target: what is asked.
        under: a context in which each forward and backward pass runs, such as a rule for the way back.
    """

    evaluator: Evaluator
    target: FrozenTarget
    under: Under = nullcontext
    _most: float = dataclasses.field(default=torch.inf, repr=False)  # pixels of a crop, since memory ran out
    _alike: bool = dataclasses.field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Names for what is used all the time."""
        self.model, self.x, self.run = self.evaluator.model, self.evaluator.x, self.evaluator.run
        self.shape = self.evaluator.shape

    @cached_property
    def field(self) -> Box:
        """The part of the image on which this target can depend; the same whether or not short cuts are taken."""
        box = field_of((self.target,), self.shape, self.evaluator.reach, self.model.spec.divisor)
        return box if box == whole(self.shape) or self._same(Piece(self.target.box, box)) else whole(self.shape)

    def steps(self, copies: Perturbations, text: str = "gradients") -> Iterator[Sampled]:
        """Gradients as they come, a batch at a time and in order; who has enough may stop asking.

        Raises:
            OutOfMemory: not even one copy fits.
            Cancelled: within one batch of the request.
        """
        self.run.cost.plain += len(copies)
        yield from self._steps(copies, text)

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of a few inputs (N, C, *space), and their scores (N,) in float64 on the CPU; tells no progress.

        Raises:
            OutOfMemory, Cancelled: as :meth:`steps`.
        """
        out = torch.zeros_like(x)
        scores = torch.zeros(len(x), dtype=torch.float64)
        for made in self._steps(_Clean(x) if x is self.x else _Given(x), None):
            at = slice(int(made.index[0]), int(made.index[-1]) + 1)
            out[(at, slice(None), *made.box)] = made.gradients
            scores[at] = made.scores
        return out, scores

    def busy(self) -> AbstractContextManager[None]:
        """A context for gradients one after the other: memory is kept between them."""
        return fast.kept_memory(self.model)

    def scores(self, x: Tensor) -> Tensor:
        """The target's number for inputs (N, C, *space), as it is read for the gradients: (N,) float64 on the CPU.

        Raises:
            OutOfMemory: one does not fit.
        """
        made = torch.zeros(len(x), dtype=torch.float64)
        with guarded(self.model):
            pieces, _ = self._plan(1, clean=False)
            for i, piece in product(range(len(x)), pieces):
                made[i] += self._score(x[i : i + 1][at_box(piece.crop)], piece)
        return made

    def passes(self, count: int) -> tuple[float, int]:
        """What so many copies take, back and forth: in forwards of the whole image, and those of a straight loop."""
        pixels = sum(p.pixels for p in self._pieces(count))
        return count * (1 + BACKWARD) * pixels / prod(self.shape), count

    def _steps(self, copies: Perturbations, text: str | None) -> Iterator[Sampled]:
        total, done = len(copies), 0
        self._tell(0, total, text)
        with guarded(self.model), fast.kept_memory(self.model):
            pieces, size = self._plan(total, isinstance(copies, _Clean))
            while done < total:
                stop = min(done + size, total)
                try:
                    made = self._batch(copies, pieces, done, stop)
                except _Unlike:
                    pieces = self._pieces(total)
                    continue
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    free_cache()
                    pieces, size = self._smaller(error, pieces, size)
                    continue
                done = stop
                yield made
                self._tell(done, total, text)

    def _tell(self, done: int, total: int, text: str | None) -> None:
        if text is None:
            self.run.check()
        else:
            self.run.progress(done, total, text)

    def _batch(self, copies: Perturbations, pieces: list[Piece], start: int, stop: int) -> Sampled:
        box = around([p.crop for p in pieces])
        total: Tensor | None = None
        scores = torch.zeros(stop - start, dtype=torch.float64)
        for piece in pieces:
            self.run.check()
            part = copies if piece.crop == whole(self.shape) else copies.within(piece.crop)
            told, made = self._through(part.batch(start, stop), piece, isinstance(copies, _Clean))
            scores += told.cpu().double()
            if total is None:
                total = made if len(pieces) == 1 else made.new_zeros(*made.shape[:2], *_sizes(box))
            if len(pieces) > 1:
                total[at_box(moved(piece.crop, [s.start for s in box]))] += made
        if total is None:
            raise TypeError("a region has at least one piece")
        return Sampled(torch.arange(start, stop), total, scores, box)

    def _through(self, x: Tensor, piece: Piece, clean: bool) -> tuple[Tensor, Tensor]:
        def score(logits: Tensor) -> Tensor:
            here = logits[self._seen(piece)]
            if clean and not self._alike and piece.pixels < prod(self.shape):
                # what a pass of its own would tell; batch norms may be folded here, which rounds otherwise
                self._compare(here.detach(), piece, 10 * ALIKE)
                if not self._alike:
                    raise _Unlike
            return self.target.combine(self.target.sums(here, piece.part))

        with self.under():
            made = forward_backward(self.model.within(piece.crop, self.shape), x, score, self.run, more=not clean)
        self.run.cost.images += len(x) * piece.pixels / prod(self.shape)
        return made

    def _score(self, x: Tensor, piece: Piece) -> float:
        with fast.kept_memory(self.model) if self.run.plain else lean(self.model), torch.inference_mode():
            self.run.check()
            logits = self.model.within(piece.crop, self.shape).logits(x if self.run.plain else fast.arranged(x))
            score = self.target.combine(self.target.sums(logits[self._seen(piece)], piece.part))
        self.run.cost.forwards += 1
        self.run.cost.images += piece.pixels / prod(self.shape)
        return float(score)

    def _plan(self, count: int, clean: bool) -> tuple[list[Piece], int]:
        """Which pieces, and how many copies at a time; the clean image's own pass tells whether a crop will do."""
        pieces, pixels = self._pieces(count), prod(self.shape)
        if not clean and pieces[0].pixels < pixels and not self._same(max(pieces, key=lambda p: p.pixels)):
            pieces = self._pieces(count)
        if self.run.precision != "full":
            self.run.note("Gradients are taken in full precision: rounding would change which pixels win.")
        size, box = self._size(pieces, count), around([p.crop for p in pieces])
        told: dict[str, Any] = {"copies": count, "batch": size}
        if box != whole(self.shape):
            told["crop"] = self.run.engine["crop"] = [[s.start, s.stop] for s in box]
        if len(pieces) > 1:
            told |= {"pieces": len(pieces), "share": round(sum(p.pixels for p in pieces) / pixels, 3)}
        if told not in self.run.engine.setdefault("gradients", []):
            self.run.engine["gradients"].append(told)
        return pieces, size

    def _pieces(self, count: int) -> list[Piece]:
        pixels = prod(self.shape)
        most = self._most if self.run.plain else min(self._most, self._room(pixels))
        # a reach that nobody has measured yet must save more than it costs
        pays = count * len(self.evaluator.targets) >= MANY or pixels >= LARGE
        pays = most < pixels or (pays and spread(self.target) <= WORTH)
        known = "reach" in vars(self.evaluator)
        asks = not self.run.plain and (known or pays or is_known(self.model))
        reach = self.evaluator.reach if asks else None
        return Pieces(self.target, self.shape, reach, self.model.spec.divisor).fitting(most)

    def _size(self, pieces: list[Piece], count: int) -> int:
        run = self.run
        if run.batch is not None or run.plain:
            return run.batch or 1
        pixels, device = max(p.pixels for p in pieces), self.model.device.type
        size = min(fast.MOST.get(device, 64), count if device == "cuda" else -(-count // STEPS))
        if device in PIXELS:
            size = min(size, max(1, PIXELS[device] // pixels))
        return max(1, int(self._room(size * pixels) / pixels))

    def _room(self, wanted: int) -> float:
        """How many of the pixels that are wanted may go through at once."""
        most = fast.SHARE * room(self.model.device, self.run)
        if wanted * GUESS <= most:
            return wanted
        return min(wanted, most / back_and_forth(self.model, self.shape, self.run, self.under))

    def _smaller(self, error: BaseException, pieces: list[Piece], size: int) -> tuple[list[Piece], int]:
        """After memory ran out: fewer copies at a time, then smaller pieces."""
        if size > 1:
            size //= 2
            self.run.note(f"Memory ran out; went on with batches of {size}.")
            return pieces, size
        self._most = max(p.pixels for p in pieces) / 2
        smaller = self._pieces(MANY)
        if max(p.pixels for p in smaller) >= max(p.pixels for p in pieces):
            raise no_memory(self.model.device) from error
        self.run.note(f"Memory ran out; went on with the region in {len(smaller)} pieces.")
        return smaller, 1

    def _same(self, piece: Piece) -> bool:
        """Whether the region's logits stay as they are when only a crop is looked at; else the reach is given up."""
        if not self._alike:
            self.run.check()
            with torch.inference_mode():
                here = self.model.within(piece.crop, self.shape).logits(self.x[at_box(piece.crop)])
            self.run.cost.forwards += 1
            self.run.cost.images += piece.pixels / prod(self.shape)
            self._compare(here[self._seen(piece)], piece, ALIKE)
        return self._alike

    def _compare(self, here: Tensor, piece: Piece, alike: float) -> None:
        there = self.evaluator.logits
        off = float((here - there[at_box(piece.part)]).abs().max())
        self._alike = off <= alike * max(1e-12, float(there.abs().max()))
        if not self._alike:
            self.run.note("The model answers differently on a crop, so the whole image is evaluated.")
            self.evaluator.reach = None

    def _seen(self, piece: Piece) -> tuple[slice, ...]:
        return at_box(moved(piece.part, [s.start for s in piece.crop]))


class _Unlike(Exception):
    """A crop turned out to be answered differently."""


class _Given(Perturbations):
    """Copies that are there already."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, start: int, stop: int) -> Tensor:
        return self.x[start:stop]


class _Clean(_Given):
    """The clean image itself."""


def _sizes(box: Box) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in box)
