"""Gradients of many targets of one image: one pass forth for all, and one pass back for all that lie far apart.

What two targets depend on are two boxes. Where these do not meet, the gradient of the sum of both is in each box that
of its own target. So targets are sorted into groups without meetings, and each group goes back once, through the same
record of the one forward pass. Few small targets of a large image had better be asked on crops, each by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seglens.core.boxes import Box, at_box, common, whole
from seglens.core.errors import OutOfMemory
from seglens.engine import fast
from seglens.engine.appetite import fits
from seglens.engine.folding import lean
from seglens.engine.gradients import derivatives, guarded, tap, tapped
from seglens.engine.optimise import BACKWARD
from seglens.engine.plan import ALIKE, seen
from seglens.engine.target import FrozenTarget
from seglens.models.device import fine_sum
from seglens.models.tiled import TiledModel

if TYPE_CHECKING:
    from seglens.engine.evaluator import Evaluator

MORE = 2**14  # pixels, whose time each pass takes besides its own


@dataclass(eq=False)
class Together:
    """The clean image's gradients of all targets of an evaluator.

    Args:
        engine: model, clean input, targets, run, reach.
        modules: layers at which gradients are wanted, from the first on; without any, at the input.
    """

    engine: Evaluator
    modules: Sequence[nn.Module] = ()
    _made: dict[int, list[Tensor]] = field(default_factory=dict)

    def at(self, target: FrozenTarget) -> list[tuple[Tensor, Tensor]] | None:
        """Input or layers (1, K, *s), and the target's gradient there; ``None`` if it had better be asked alone.

        Raises:
            MissingNeed: a layer is never called, or returns no tensor.
            Cancelled: of the passes.
        """
        if target not in self.engine.targets or not self._pays:
            return None
        number = self.engine.targets.index(target)
        try:
            places, boxes = self._record[0], self._boxes_at
            if boxes is not None and number not in self._made:
                self._back(next(group for group in self._groups if number in group), boxes)
        except OutOfMemory:
            self._give_up("Memory ran out for passes of all targets together, so each is asked alone.")
            return None
        if number not in self._made or boxes is None:
            return None
        made = self._made.pop(number)
        out = [torch.zeros_like(place) for place in places]
        for whole_map, box, values in zip(out, boxes[number], made, strict=True):
            whole_map[at_box(box)] = values
        return [(place.detach(), values) for place, values in zip(places, out, strict=True)]

    @cached_property
    def _boxes(self) -> list[Box]:
        """What each target depends on."""
        engine = self.engine
        reach = engine.reach if engine.crops_pay else None
        return [seen(t.box, engine.shape, reach, engine.model.spec.divisor) for t in engine.targets]

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Targets by number, in groups within which no boxes meet."""
        groups: list[list[int]] = []
        for number, box in enumerate(self._boxes):
            free = (g for g in groups if all(common(box, self._boxes[other]) is None for other in g))
            group = next(free, None)
            if group is None:
                groups.append([number])
            else:
                group.append(number)
        return groups

    @cached_property
    def _pays(self) -> bool:
        """Whether that takes less than a crop for each, and fits into memory."""
        engine = self.engine
        if len(engine.targets) < 2 or engine.run.plain or isinstance(engine.model, TiledModel):
            return False
        together = (MORE + prod(engine.shape)) * (1 + BACKWARD * len(self._groups))
        alone = sum(MORE + prod(s.stop - s.start for s in box) for box in self._boxes) * (1 + BACKWARD)
        return together < alone and fits(engine.model, engine.shape, engine.run)

    @cached_property
    def _record(self) -> tuple[list[Tensor], Tensor]:
        """The input or the layers' answers, and the logits that follow from them, as one graph."""
        model, run = self.engine.model, self.engine.run
        with guarded(model), lean(model, *self.modules, spare=fast.spare(self.engine.x, run)), torch.enable_grad():
            run.check()
            leaf = fast.arranged(self.engine.x).detach().clone().requires_grad_(not self.modules)
            with ExitStack() as stack:
                taps = [stack.enter_context(tap(module)) for module in self.modules]
                logits = model.logits(leaf.clone())
            places = [tapped(one, model, run) for one in taps] or [leaf]
        run.cost.forwards += 1
        told = {"targets": len(self.engine.targets), "passes back": len(self._groups)}
        run.engine.setdefault("gradients", []).append(told)
        return places, logits

    @cached_property
    def _boxes_at(self) -> list[list[Box]] | None:
        """Each target's box in the maps of the input or the layers; ``None`` where a layer's map does not lie on it."""
        space = self.engine.shape
        full = self.engine.model.padded(space) if self.modules else space
        found = []
        for box in self._boxes:
            own = [_shrunk(box, space, full, tuple(place.shape[2:])) for place in self._record[0]]
            if any(one is None for one in own):
                return None
            found.append([one for one in own if one is not None])
        return found

    def _give_up(self, why: str) -> None:
        """From now on each target is asked alone, and nothing of the passes is kept."""
        self.engine.run.note(why)
        self._pays = False
        self._made.clear()
        vars(self).pop("_record", None)

    def _back(self, group: list[int], boxes: list[list[Box]]) -> None:
        places, logits = self._record
        model, run = self.engine.model, self.engine.run
        run.check()
        with guarded(model), fast.kept_memory(model), torch.enable_grad():
            total = torch.stack([self.engine.targets[n](logits).sum() for n in group]).sum()
            gradients = derivatives(total, places, keep=True)
        run.cost.backwards += 1
        found = {n: [g[at_box(b)].clone() for g, b in zip(gradients, boxes[n], strict=True)] for n in group}
        for place, gradient in enumerate(gradients):
            all_of_it = fine_sum(gradient.abs())
            inside = sum(fine_sum(parts[place].abs()) for parts in found.values())
            if float(all_of_it - inside) > ALIKE * float(all_of_it):
                self._give_up("A gradient lies where the reach says that none can be, so each target is asked alone.")
                return
        self._made |= found


def together(engine: Evaluator, modules: tuple[nn.Module, ...] = ()) -> Together:
    """The one of an evaluator and its layers."""
    key = (Together, tuple(map(id, modules)))
    if key not in engine.shelf:
        engine.shelf[key] = Together(engine, modules)
    made: Together = engine.shelf[key]
    return made


def _shrunk(box: Box, space: Sequence[int], full: Sequence[int], size: Sequence[int]) -> Box | None:
    """A box of an image, seen by the network in a size, in a layer's map of another; ``None`` if it falls between."""
    if tuple(box) == whole(space):
        return whole(size)
    found = []
    for s, n, have, m in zip(box, space, full, size, strict=True):
        stride = max(1, have // m)
        if stride * m != have or s.start % stride or (s.stop % stride and s.stop != n):
            return None
        found.append(slice(s.start // stride, -(-s.stop // stride)))
    return tuple(found)
