"""Preprocessing steps of other formats, put together into one affine normalisation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from seglens.core.errors import ModelMismatch
from seglens.models.spec import Normalisation

Numbers = tuple[float, ...]
STATISTICAL = ("percentile", "zscore")


@dataclass
class Chain:
    """Steps in the order in which they are applied; each is affine, so that all of them together are.

    Args:
        name: the model, for people.
    """

    name: str
    result: Normalisation = field(default_factory=Normalisation)

    def linear(self, gain: Numbers, offset: Numbers) -> None:
        """``x * gain + offset``, one number for all channels or one for each.

        Raises:
            ModelMismatch: a gain is 0, or channels are scaled one by one after percentiles or z-score.
        """
        if any(g == 0 for g in gain):
            raise self.refuse("scales a channel by 0")
        now = self.result
        if now.kind in STATISTICAL:
            if len(set(gain)) > 1 or len(set(offset)) > 1:
                raise self.refuse("scales each channel in its own way after it normalised the image")
            # y = ((u - m) / s) * g + o  =  (u - (m - o * s / g)) / (s / g)
            step = now.then_std / gain[0]
            self.result = replace(now, then_mean=now.then_mean - offset[0] * step, then_std=step)
            return
        count = max(len(gain), len(offset), len(now.mean), len(now.std))
        mean, std = _long(now.mean, count), _long(now.std, count)
        gain, offset = _long(gain, count), _long(offset, count)
        new = tuple(s / g for s, g in zip(std, gain, strict=True))
        moved = tuple(m - o * s for m, o, s in zip(mean, offset, new, strict=True))
        self.result = replace(now, kind="fixed", mean=moved, std=new)

    def zscore(self, *, per_channel: bool) -> None:
        """Mean 0 and deviation 1 of this image."""
        self._forget_scale("normalises to mean 0 and deviation 1 twice")
        self.result = Normalisation("zscore", per_channel=per_channel)

    def percentile(self, low: float, high: float, *, per_channel: bool) -> None:
        """The percentile ``low`` to 0 and ``high`` to 1."""
        self._forget_scale("normalises by percentiles after another normalisation")
        self.result = Normalisation("percentile", low=low, high=high, per_channel=per_channel)

    def _forget_scale(self, twice: str) -> None:
        """What comes before does not matter, as long as it kept the order of intensities and treated channels alike."""
        now = self.result
        alike = len(set(now.mean)) == 1 and len(set(now.std)) == 1
        if now.kind in STATISTICAL or not alike or min(now.std) < 0:
            raise self.refuse(twice)

    def refuse(self, what: str) -> ModelMismatch:
        """The error for a step that has no counterpart here."""
        return ModelMismatch(
            f"The preprocessing of {self.name} {what}, which SegLens cannot do.",
            fix="Apply that step to your images beforehand, and describe the rest in a model.json with the weights.",
        )


def _long(numbers: Numbers, count: int) -> Numbers:
    return numbers * count if len(numbers) == 1 else numbers
