"""The pass of the clean image, on which the target is frozen: made once, by whoever first asks for what it tells.

A method whose first step is a pass of the whole image anyway (a gradient, a layer, a record for other rules) makes it
its own: the logits of that very pass freeze the target, and no other pass is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from seglens.core.boxes import Box, whole
from seglens.core.run import Run
from seglens.core.target import Border, Object, Painted, Point, Region, Target
from seglens.core.target import Box as TargetBox
from seglens.engine import fast
from seglens.engine.folding import lean
from seglens.engine.gradients import guarded
from seglens.engine.plan import LARGE, seen
from seglens.engine.reach import find_reach, is_known
from seglens.engine.target import FrozenTarget, freeze
from seglens.models.blame import blaming
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiled import TiledModel


@dataclass(eq=False)
class Clean:
    """What the model answers to the clean image, and the target that is frozen on it.

    Args:
        model: the model.
        x: clean input (1, C, *space).
        asked: the target, as it was asked for.
        run: memory, cancel, cost.
    """

    model: SegmentationModel
    x: Tensor
    asked: Target
    run: Run
    _logits: Tensor | None = None
    _target: FrozenTarget | None = None

    @property
    def fresh(self) -> bool:
        """Whether no pass has been made yet."""
        return self._logits is None

    @property
    def logits(self) -> Tensor:
        """Logits (1, K, *space).

        Raises:
            OutOfMemory, ModelMismatch, Cancelled: of the pass.
        """
        if self._logits is not None:
            return self._logits
        plain = self.run.plain
        self.run.check()
        cheaply = fast.kept_memory(self.model) if plain else lean(self.model)
        with guarded(self.model), blaming(self.model), cheaply, torch.inference_mode():
            self.run.check()  # the first time, the network was looked at for what can be folded
            logits = self.model.logits(self.x if plain else fast.arranged(self.x))
        self.run.cost.forwards += 1
        return self.see(logits)

    @property
    def target(self) -> FrozenTarget:
        """The target with class and region fixed; raises as :attr:`logits` and :func:`freeze`."""
        if self._target is None:
            logits = self.logits
            with _unseen():
                self._target = freeze(self.asked, logits, self.model.spec)
        return self._target

    def see(self, logits: Tensor) -> Tensor:
        """Keep the logits (1, K, *space) of a pass of the clean image; only the first count, and are returned."""
        if self._logits is None:
            with _unseen():
                self._logits = logits.detach().clone()
        return self._logits

    def score(self, logits: Tensor) -> Tensor:
        """The target's number (1,) of the clean image's logits, on which it is frozen first if it is not yet."""
        self.see(logits)
        return self.target(logits)

    def about(self, target: FrozenTarget) -> Clean:
        """The same image and logits, another target."""
        return Clean(self.model, self.x, self.asked, self.run, self.logits, target)

    @property
    def opens(self) -> bool:
        """Whether a method that needs a pass of its own may make the first one, of all of the image.

        Where the region is known to be small, and a crop of it is cheaper than the image, it had better not.
        """
        if not self.fresh or self.run.plain or isinstance(self.model, TiledModel):
            return False
        shape = tuple(self.x.shape[2:])
        box = _place(self.asked.region, shape)
        if box is None or not _inside(box, shape):
            return True  # whoever freezes the target says what is wrong with it
        if not is_known(self.model):
            return prod(shape) < LARGE
        return seen(box, shape, find_reach(self.model), self.model.spec.divisor) == whole(shape)


@contextmanager
def _unseen() -> Iterator[None]:
    """Outside of graphs, of inference mode, and of whatever looks at the operations of the network."""
    with torch.inference_mode(False), torch.no_grad(), _disable_current_modes():
        yield


def _place(region: Region, shape: tuple[int, ...]) -> Box | None:
    """Where a region lies, as far as that is known before the model has drawn anything; ``None``: anywhere."""
    match region:
        case Painted(mask, _):
            held = np.asarray(mask).nonzero()
            return tuple(slice(int(p.min()), int(p.max()) + 1) for p in held) if held[0].size else None
        case TargetBox(start, stop, _):
            return tuple(slice(max(0, a), min(b, n)) for a, b, n in zip(start, stop, shape, strict=False))
        case Point(at) | Object(_, tuple() as at):
            return tuple(slice(p, p + 1) for p in at)
        case Object():
            return tuple(slice(n // 2, n // 2 + 1) for n in shape)
        case Border(of, _):
            return _place(of, shape)
        case _:
            return None


def _inside(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether a box has the axes of an image, and lies in it."""
    return len(box) == len(shape) and all(0 <= s.start < s.stop <= n for s, n in zip(box, shape, strict=True))
