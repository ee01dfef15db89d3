"""A case whose image and model stay while the target changes: what only they decide is worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from seglens.core.run import Run
from seglens.engine.case import Case
from seglens.engine.target import FrozenTarget
from seglens.models.device import room


@dataclass(frozen=True, eq=False)
class Standing(Case):
    """The same image, asked again and again.

    Args:
        kept: what layers answered to the clean image, (1, K, *s) by name; at most ``run.memory`` bytes of them.
    """

    kept: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case) -> Standing:
        """A case that will be asked about other targets."""
        return cls(**{f.name: getattr(case, f.name) for f in fields(Case)})

    def turned(self, target: FrozenTarget, run: Run, annotation: NDArray[Any] | None = None) -> Standing:
        """The same about another target, in another run; what is kept stays kept."""
        return replace(self, clean=self.clean.about(target), run=run, annotation=annotation)

    def clean_at(self, layers: Sequence[str]) -> list[Tensor]:
        """As a case's, but a layer is looked at once."""
        missing = [layer for layer in layers if layer not in self.kept]
        found = dict(zip(missing, super().clean_at(missing), strict=True)) if missing else {}
        every = self.kept | found
        if sum(one.nbytes for one in every.values()) <= room(self.model.device, self.run):
            self.kept.update(found)
        else:
            self.kept.clear()
        return [every[layer] for layer in layers]
