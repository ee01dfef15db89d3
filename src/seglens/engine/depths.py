"""A case that is asked at one layer after another, and looks at as many at once as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import prod

from torch import Tensor

from seglens.engine.case import Case
from seglens.models.device import room
from seglens.models.layers import LayerInfo

_BYTES = 4 * 4  # of one value: its activation and gradient, what the pass back keeps, and the same of a crop


@dataclass(frozen=True, eq=False)
class Depths(Case):
    """The same question, but layers that come next are looked at in the same pass.

    Args:
        order: the layers in the order in which they will be asked for.
        seen: activations and gradients (1, K, *s) by layer, of the layers that were looked at together.
        answered: the same without gradients, of methods that ask for none.
    """

    order: tuple[LayerInfo, ...] = ()
    seen: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    answered: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, order: Sequence[LayerInfo]) -> Depths:
        """A case that will be asked at these layers."""
        return cls(**{f.name: getattr(case, f.name) for f in fields(Case)}, order=tuple(order))

    def activations(self, layer: str) -> tuple[Tensor, Tensor]:
        """As a case's; in one forward and one backward pass for all that come next and fit into ``run.memory``."""
        if layer not in self.seen:
            self.seen.clear()
            names = self._next(layer)
            self.seen.update(zip(names, self.activations_at(names), strict=True))
        return self.seen[layer]

    def activation(self, layer: str) -> Tensor:
        """As a case's; in one forward pass for all that come next and fit."""
        if layer in self.seen:
            return self.seen[layer][0]
        if layer not in self.answered:
            self.answered.clear()
            names = self._next(layer)
            self.answered.update(zip(names, self.clean_at(names), strict=True))
        return self.answered[layer]

    def _next(self, layer: str) -> list[str]:
        names = [info.name for info in self.order]
        if layer not in names:
            return [layer]
        taken, left = [layer], room(self.model.device, self.run) - self._size(self.order[names.index(layer)])
        for info in self.order[names.index(layer) + 1 :]:
            left -= self._size(info)
            if left < 0:
                break
            taken.append(info.name)
        return taken

    def _size(self, info: LayerInfo) -> int:
        return _BYTES * info.channels * prod(max(1, n // info.stride) for n in self.shape)
