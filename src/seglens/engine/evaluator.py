"""Scoring many perturbed copies of an image: crops, packing, batches, memory, progress and cancel in one place."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import isfinite, prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from seglens.core.boxes import Box, at_box, common, moved, whole
from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.engine import cache, dirty, fast, tuning
from seglens.engine.dirty_program import Program
from seglens.engine.dirty_trace import Tracer
from seglens.engine.folding import lean
from seglens.engine.packing import NotApart, Packed
from seglens.engine.perturb import Perturbations
from seglens.engine.pieces import spread
from seglens.engine.plan import ALIKE, LARGE, WORTH, Plan, Scored, plan
from seglens.engine.plan import field as field_of
from seglens.engine.reach import Reach, TileReach, find_reach, is_known
from seglens.engine.replay import Replay
from seglens.engine.target import FrozenTarget
from seglens.engine.turns import stepwise
from seglens.models.device import free_cache, is_out_of_memory, no_memory, wait
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiled import TiledModel

# Below this many evaluations a reach that nobody has measured yet costs more than it saves.
MANY = 24
STEPS = 16  # at least so many batches, however small the image
LEAST = {"cuda": 32}  # copies of a batch, as far as they fit: they take no longer than a few
FEW = 8  # passes; for less, dirty rectangles are not thought about

_SECONDS: dict[tuple[Any, ...], float] = {}


class LayerChange(Protocol):
    """Changed answers of a layer, made when they are needed."""

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, activation: Tensor, start: int, stop: int) -> Tensor:
        """Some of them, (n, K, *s), made of the layer's clean answer (1, K, *s)."""


@dataclass(frozen=True)
class First:
    """The first pass of a crop.

    Args:
        crop: which.
        logits: of the clean image there, (1, K, *crop).
        bytes: what a copy takes on its way, at most.
        program: the network's operations; ``None`` if they are not all local.
    """

    crop: Box
    logits: Tensor
    bytes: int
    program: Program | None


@dataclass(eq=False)
class Evaluator:
    """Scores perturbed copies of one image for one or many targets.

    Args:
        model: what they are sent through, without gradients.
        x: clean input (1, C, *space).
        logits: its logits (1, K, *space).
        targets: everything that is asked of each copy; the first is the case's own.
        run: batch size, memory, progress, cancel.
        shelf: what others keep here for all targets.
    """

    model: SegmentationModel
    x: Tensor
    logits: Tensor
    targets: tuple[FrozenTarget, ...]
    run: Run
    _layout: tuning.Setting = dataclasses.field(default_factory=tuning.Setting)
    shelf: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)
    _first: First | None = None
    _local: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of space."""
        return tuple(self.x.shape[2:])

    @cached_property
    def reach(self) -> Reach | TileReach | None:
        """The model's reach; ``None`` if it is global."""
        return find_reach(self.model, self.run)

    @cached_property
    def field(self) -> Box:
        """The part of the image on which the targets can depend; checked against the whole once."""
        box = field_of(self.targets, self.shape, self.reach, self.model.spec.divisor)
        if box == whole(self.shape) or self._same_in(box):
            return box
        self.run.note("The model answers differently on a crop, so the whole image is evaluated.")
        self.reach = None
        return whole(self.shape)

    @property
    def cheap_field(self) -> Box:
        """The same for a single pass: all of the image where finding out would cost more than it saves."""
        return self.field if self.crops_pay else whole(self.shape)

    @property
    def crops_pay(self) -> bool:
        """Whether a crop saves more than finding out about it costs, for a single pass for each target."""
        if self.run.plain:
            return False
        far = len(self.targets) > 1 or spread(self.targets[0]) <= WORTH
        return far and (prod(self.shape) >= LARGE or len(self.targets) >= MANY or is_known(self.model))

    def plan(self, perturbations: Perturbations) -> Plan:
        """How these copies will be scored."""
        if self.run.plain or ("reach" not in vars(self) and len(perturbations) < MANY):
            return plan(perturbations, self.targets, whole(self.shape), self.shape, None)
        crop = self.field  # first: looking at it may find that the reach cannot be relied on
        how = plan(perturbations, self.targets, crop, self.shape, self.reach)
        wholly = isinstance(self.model, TiledModel) or self.run.precision != "full" or not self._local
        return how if wholly or how.passes <= FEW else dirty.choose(self, how, perturbations)

    def first(self, crop: Box) -> First:
        """The first pass of a crop, made once; its operations are written down."""
        if self._first is None or self._first.crop != crop:
            x = self.x[at_box(crop)]
            tracer = Tracer(x)
            with torch.inference_mode(), fast.Peak() as peak, tracer:
                logits = self.run_on(x, crop)
            self.run.cost.forwards += 1
            self.run.cost.images += prod(x.shape[2:]) / prod(self.shape)
            self._first = First(crop, logits, peak.bytes, Program.of(tracer.trace(logits)))
        return self._first

    def steps(self, perturbations: Perturbations, text: str = "evaluations") -> Iterator[Scored]:
        """Scores as they come, in whatever order the work is done.

        Raises:
            OutOfMemory: not even one copy fits.
            Cancelled: within one batch of the request.
        """
        total = len(perturbations)
        key = None if self.run.plain else cache.key(self.model, perturbations, self.run)
        known = cache.find(key, self.targets)
        self.run.cost.plain += total
        if known is not None:
            self.run.engine["scores"] = "known from an earlier run"
            yield Scored(torch.arange(total), known)
            return
        made = torch.zeros(total, len(self.targets), dtype=torch.float64)
        with fast.kept_memory(self.model):
            for scored in stepwise(self._lean, self._work(perturbations, text)):
                made[scored.index] = scored.scores
                yield scored
        cache.keep(key, self.targets, made)

    def scores(self, perturbations: Perturbations, text: str = "evaluations") -> Tensor:
        """All scores, (N, targets) in float64 on the CPU."""
        made = torch.zeros(len(perturbations), len(self.targets), dtype=torch.float64)
        for scored in self.steps(perturbations, text):
            made[scored.index] = scored.scores
        return made

    def seconds(self) -> float:
        """How long one forward pass of the whole image takes here, as copies are scored; measured on the field."""
        shape = tuple(s.stop - s.start for s in self.field)
        key = (
            self.model.fingerprint(),
            self.model.variant,
            str(self.model.device),
            shape,
            torch.get_num_threads(),
            self.run.precision,
        )
        if key not in _SECONDS:
            x = self.x[at_box(self.field)]
            with self._lean():
                self.run_on(x, self.field)  # the first one asks the system for memory
                wait(self.model.device)
                start = time.perf_counter()
                self.run_on(x, self.field)
                wait(self.model.device)
                _SECONDS[key] = time.perf_counter() - start
        return float(_SECONDS[key] * prod(self.shape) / prod(shape))

    def layer_steps(self, module: nn.Module, change: LayerChange, text: str = "channels") -> Iterator[Scored]:
        """Scores with a layer's answer changed; what lies before the layer runs once.

        Raises:
            MissingNeed: the layer is never called, or returns no tensor.
            OutOfMemory, Cancelled: as :meth:`steps`.
        """
        with fast.kept_memory(self.model):
            yield from stepwise(partial(self._lean, module), self._changed(module, change, text))

    def _changed(self, module: nn.Module, change: LayerChange, text: str) -> Iterator[Scored]:
        run, total = self.run, len(change)
        crop = whole(self.shape) if run.plain else self.field
        how = Plan(self.shape, crop, None, (), {}, total)
        run.check()
        replay = Replay(lambda x: self.run_on(x, crop), module, self.x[at_box(crop)], trust=not run.plain)
        run.cost.forwards += replay.forwards
        run.cost.images += replay.forwards * how.share
        if run.precision != "full" and not run.plain:
            self._tell_error(replay.clean, how)
        if not replay.exact and not run.plain:
            run.note("What lies before the layer cannot be kept apart, so the whole network runs each time.")

        clean = self._read(replay.clean, how)

        def score(start: int, stop: int) -> Scored:
            changed = change.batch(replay.activation, start, stop)
            logits = replay(fast.arranged(changed) if self._layout.arranged and not run.plain else changed)
            return Scored(torch.arange(start, stop), self._from_clean(self._read(logits, how), clean))

        self.run.engine["behind the layer"] = round(replay.share, 3)
        run.cost.plain += total
        yield from self._batches(score, how, replay.bytes, text, weight=replay.share)

    @cached_property
    def clean(self) -> Tensor:
        """Scores of the clean image, (targets,) in float64."""
        return torch.cat([t.combine(t.sums(self.logits[at_box(t.box)], t.box)) for t in self.targets]).cpu().double()

    @contextmanager
    def _lean(self, *keep: nn.Module) -> Iterator[None]:
        cheaply = fast.kept_memory(self.model) if self.run.plain else lean(self.model, *keep)
        with cheaply, torch.inference_mode():
            yield

    def _work(self, perturbations: Perturbations, text: str) -> Iterator[Scored]:
        how = self.plan(perturbations)
        try:
            score, peak = self._scorer(perturbations, how)
        except NotApart:
            yield from self._work(perturbations, text)
            return
        except dirty.NotLocal:
            self.run.note("Computing no more than a window changes gives other numbers here, so whole passes are made.")
            self._local = False
            yield from self._work(perturbations, text)
            return
        if how.silent:
            # nothing that they change can be seen by the targets
            yield Scored(torch.tensor(how.silent), self.clean.expand(len(how.silent), -1))
        yield from self._batches(score, how, peak, text, weight=how.weight)

    def _batches(
        self, score: Callable[[int, int], Scored], how: Plan, peak: int, text: str, *, weight: float = 1.0
    ) -> Iterator[Scored]:
        """Score pass by pass, as many at a time as fit; ``weight`` is the part of the network that runs."""
        run = self.run
        size = self._setting(how, peak).batch
        if run.batch is None:
            # so that progress is seen and a stop is heard
            size = min(size, max(LEAST.get(self.model.device.type, 1), -(-how.passes // STEPS)))
        self._told(how, size)
        done = 0
        run.progress(0, how.passes, text)
        while done < how.passes:
            stop = how.until(done, size)
            try:
                scored = score(done, stop)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                free_cache()
                if size == 1:
                    raise no_memory(self.model.device) from error
                size = max(1, size // 2)
                run.note(f"Memory ran out; went on with batches of {size}.")
                continue
            run.cost.forwards += stop - done
            run.cost.images += (stop - done) * how.share * weight
            done = stop
            yield scored
            run.progress(done, how.passes, text)

    def _setting(self, how: Plan, peak: int) -> tuning.Setting:
        """Layout and batch, from here on."""
        if self.run.plain:
            return tuning.Setting(False, self.run.batch or 1)
        if how.rectangles is not None:
            taken = how.rectangles.program.bytes
            return tuning.Setting(True, fast.batch_size(self.model, how.rectangles.pixels, peak, self.run, taken))

        def logits(x: Tensor) -> Tensor:
            with fast.precision(self.model, self.run):
                return self.model.within(how.crop, self.shape).logits(x)

        before = self.run.cost.forwards
        self._layout = tuning.choose(self.model, logits, self.x[at_box(how.crop)], peak, how.passes, self.run)
        self.run.cost.images += (self.run.cost.forwards - before) * how.share
        return self._layout

    def _scorer(self, copies: Perturbations, how: Plan) -> tuple[Callable[[int, int], Scored], int]:
        """A function that scores some passes, and the bytes that one takes."""
        inside = copies.within(how.crop) if how.cropped else copies
        if self.run.plain:
            return lambda start, stop: self._alone(inside, how, start, stop, self.clean), 0
        first = self.first(how.crop)
        clean = first.logits
        if self.run.precision != "full":
            self._tell_error(clean, how)
        if how.rectangles is not None:
            return dirty.scorer(self, copies, how, how.rectangles, clean).score, how.rectangles.peak
        if how.groups is None:
            read = self._read(clean, how)
            return lambda start, stop: self._alone(inside, how, start, stop, read), first.bytes
        packed = Packed(self, inside, how, clean)
        if not packed.holds():
            self.run.note("Windows are felt further away than the reach tells, so each takes a pass of its own.")
            self.reach = None
            raise NotApart
        return packed.score, first.bytes

    def _alone(self, inside: Perturbations, how: Plan, start: int, stop: int, clean: Tensor) -> Scored:
        logits = self.run_on(inside.batch(start, stop), how.crop)
        return Scored(torch.arange(start, stop), self._from_clean(self._read(logits, how), clean))

    def _from_clean(self, scores: Tensor, clean: Tensor) -> Tensor:
        """Take out what crop, layout and precision do to the clean score: no change scores exactly no change."""
        return scores if self.run.plain else self.clean + (scores - clean)

    def _read(self, logits: Tensor, how: Plan) -> Tensor:
        """Every target's number (n, targets) of logits (n, K, *crop)."""
        corner = [s.start for s in how.crop]
        columns = []
        for t in self.targets:
            at = common(t.box, how.crop) or how.crop
            columns.append(t.combine(t.sums(logits[at_box(moved(at, corner))], at)))
        return torch.stack(columns, 1).cpu().double()

    def run_on(self, x: Tensor, crop: Box) -> Tensor:
        """Logits (N, K, *crop) of copies (N, C, *crop) of a part of the image."""
        if self.run.plain:
            return self.model.logits(x)
        with fast.precision(self.model, self.run):
            laid = fast.arranged(x) if self._layout.arranged else x
            return self.model.within(crop, self.shape).logits(laid).float()

    def _same_in(self, box: Box) -> bool:
        """Whether the region's logits stay the same when only the crop is looked at."""
        self.run.check()
        with torch.inference_mode():
            cropped = self.model.within(box, self.shape).logits(self.x[at_box(box)])
        self.run.cost.forwards += 1
        self.run.cost.images += cropped[0, 0].numel() / prod(self.shape)
        corner = [s.start for s in box]
        worst = max(
            float((cropped[at_box(moved(t.box, corner))] - self.logits[at_box(t.box)]).abs().max())
            for t in self.targets
        )
        return worst <= ALIKE * max(1e-12, float(self.logits.abs().max()))

    def _tell_error(self, clean: Tensor, how: Plan) -> None:
        true = self.logits[at_box(how.crop)]
        error = float((clean - true).abs().max())
        if not isfinite(error):
            raise BadParameter(
                f"In {self.run.precision} numbers inside {self.model.spec.name} become too large.",
                fix="Use --precision bf16, which holds large numbers, or full.",
            )
        self.run.engine["precision"] = {"kind": self.run.precision, "logit error": error}
        self.run.note(
            f"A preview in {self.run.precision}: logits move by up to {error:.2g} of {float(true.abs().max()):.2g}."
        )

    def _told(self, how: Plan, size: int) -> None:
        told: dict[str, Any] = {"passes": how.passes, "instead of": how.count, "batch": size}
        if how.cropped:
            told["crop"] = [[s.start, s.stop] for s in how.crop]
        if how.rectangles is not None:
            told |= {
                "dirty rectangles": True,
                "multiplications": round(how.weight, 4),
                "without effect": len(how.silent),
            }
        elif how.groups is not None:
            told |= {"packed": True, "without effect": len(how.silent)}
        if not self.run.plain and "reach" in vars(self) and self.reach is not None:
            told["reach"] = self.reach.widest
        self.run.engine.setdefault("evaluations", []).append(told)
