"""Freezing a target on the clean image: from then on its region does not move.

The region must not follow the prediction. A region chosen again after each perturbation shrinks as the
perturbation works, and the score jumps for the wrong reason (cards A/K1, B/B0).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure
from torch import Tensor

from seglens.core.boxes import Box, at_box, whole
from seglens.core.errors import ImageMismatch, NoSuchRegion
from seglens.core.target import Border, Object, Painted, Point, Predicted, Region, Target, Value
from seglens.core.target import Box as TargetBox
from seglens.models.classes import drawn, log_probability
from seglens.models.device import fine_sum
from seglens.models.spec import ModelSpec

Labels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class FrozenTarget:
    """Logits to one number per sample.

    Args:
        index, name: the class.
        weights: (*space) float: positive counts for, negative against, zero not at all.
        value: what is read per pixel.
        mean: divide by the number of pixels that count.
        live: count the pixels that are of the class now, whatever was frozen.
        overlapping: each class has a sigmoid of its own, and a pixel may be of several.
    """

    index: int
    name: str
    weights: Tensor
    value: Value
    mean: bool
    live: bool = False
    overlapping: bool = False

    @property
    def region(self) -> NDArray[np.bool_]:
        """The pixels that count (*space)."""
        return (self.weights != 0).cpu().numpy()

    @cached_property
    def pixels(self) -> int:
        """How many pixels count."""
        return int((self.weights != 0).sum())

    @cached_property
    def positive(self) -> int:
        """How many pixels count for it."""
        return int((self.weights > 0).sum())

    def per_pixel(self, logits: Tensor) -> Tensor:
        """The chosen value of the class, (N, K, *space) to (N, *space)."""
        own = logits[:, self.index]
        if self.value == "logit":
            return own
        if self.value == "margin":
            # what each draws for itself has no rival but the background
            rivals = range(1) if self.overlapping and self.index else range(logits.shape[1])
            return own - logits[:, [i for i in rivals if i != self.index]].amax(1)
        log = log_probability(logits, self.index, self.overlapping)
        return log if self.value == "log-probability" else log.exp()

    def drawn(self, logits: Tensor) -> Tensor:
        """Where logits (N, K, *space) draw the class: bool (N, *space)."""
        return drawn(logits, self.index, self.overlapping)

    @cached_property
    def box(self) -> Box:
        """The pixels on which the number depends, as a box: that of the region, or everything."""
        if self.live or self.value == "dice":
            return whole(self.weights.shape)
        seen = [np.flatnonzero(axis.cpu().numpy()) for axis in _shadows(self.weights != 0)]
        return tuple(slice(int(s[0]), int(s[-1]) + 1) for s in seen)

    def sums(self, logits: Tensor, at: Box | None = None) -> Tensor:
        """What adds up over pixels, (N, K, *box) to (N, P), as exactly as the device can; see :meth:`combine`.

        Because it adds up, what a change does here can be told apart from what another does there.

        Args:
            logits: of the pixels in ``at``.
            at: a box of the image; by default all of it.
        """
        values = self.per_pixel(logits)
        weights = (self.weights if at is None else self.weights[at]).to(values)
        if self.live:
            now = self.drawn(logits).to(values)
            parts = [values * now, now]
        elif self.value == "dice":
            parts = [values * (weights > 0), values]
        else:
            parts = [values * weights]
        return torch.stack([fine_sum(part.flatten(1), 1) for part in parts], 1)

    def combine(self, sums: Tensor) -> Tensor:
        """The number of whole sums, (…, P) to (…)."""
        if self.live:
            return sums[..., 0] / (sums[..., 1].clamp(min=1) if self.mean else 1)
        if self.value == "dice":
            return 2 * sums[..., 0] / (sums[..., 1] + self.positive)
        return sums[..., 0] / self.pixels if self.mean else sums[..., 0]

    def within(self, box: Box) -> FrozenTarget:
        """The same target asked of logits of a box that holds all of :attr:`box`."""
        return replace(self, weights=self.weights[box])

    def part(self, box: Box) -> FrozenTarget:
        """What the pixels of a box bring to the number: of boxes that hold the whole region these add up to it."""
        weights = torch.zeros_like(self.weights)
        weights[box] = self.weights[box]
        # the mean is over all pixels of the region, not of the part
        return replace(self, weights=weights * (int((weights != 0).sum()) / self.pixels) if self.mean else weights)

    def __call__(self, logits: Tensor) -> Tensor:
        """One number per sample, (N, K, *space) to (N,)."""
        at = self.box
        return self.combine(self.sums(logits[at_box(at)], at)).to(logits.dtype)

    @cached_property
    def key(self) -> bytes:
        """Tells targets apart, for caches."""
        told = f"{self.index} {self.value} {self.mean} {self.live} {self.overlapping} {tuple(self.weights.shape)}"
        return hashlib.sha256(told.encode() + self.weights.cpu().numpy().tobytes()).digest()


def _shadows(mask: Tensor) -> list[Tensor]:
    """Along each axis, where anything is set."""
    return [mask.any(tuple(a for a in range(mask.ndim) if a != axis)) if mask.ndim > 1 else mask
            for axis in range(mask.ndim)]  # fmt: skip


def freeze(target: Target, logits: Tensor, spec: ModelSpec, labels: Labels | None = None) -> FrozenTarget:
    """Fix class and region on the clean image's logits (1, K, *space).

    Args:
        target: class, region, value, reduction.
        logits: of the clean image.
        spec: the model's classes.
        labels: the predicted classes (*space), where they are known already.

    Raises:
        NoSuchRegion: the region is empty, or outside the image.
        ImageMismatch: a mask of another shape.
        UnknownName: no such class.
    """
    if labels is None:
        # a quarter of the bytes, where they have a way to go
        labels = logits[0].argmax(0).to(torch.int16).cpu().numpy()
    index = None if target.of_class is None else spec.class_index(target.of_class)
    if index is None:
        index = _class_in(target.region, labels, spec)
    own = drawn(logits, index, True)[0].cpu().numpy() if spec.overlapping else None
    weights = region_weights(target.region, labels, index, spec, own)
    value: Value = target.value
    if value == "logit" and spec.multilabel and (index == 0 or len(spec.classes) == 2):
        # the background of such a network has no logit; one of a single logit has z for its class and -z against it
        value = "margin"
    frozen = torch.from_numpy(weights.astype(np.float32)).to(logits.device)
    live = isinstance(target.region, Predicted) and target.region.live
    name, mean = spec.classes[index].name, target.reduction == "mean"
    return FrozenTarget(index, name, frozen, value, mean, live, spec.overlapping)


def objects(labels: Labels) -> NDArray[np.int32]:
    """Connected components (edge neighbours) of equal foreground class, numbered from 1 in raster order."""
    return np.asarray(measure.label(labels, background=0, connectivity=1), dtype=np.int32)


def region_weights(
    region: Region, labels: Labels, index: int, spec: ModelSpec, own: Labels | None = None
) -> NDArray[np.float32]:
    """Weights (*space) of a region; raises if nothing counts.

    Args:
        region: which pixels.
        labels: class per pixel.
        index: of the class asked about.
        spec: the model's classes.
        own: where the class is drawn, if labels do not tell all of it, as classes may overlap.
    """
    own = labels == index if own is None else own
    match region:
        case Painted(mask, _):
            weights = np.sign(_fitting(mask, labels).astype(np.float32))
        case Point(at):
            weights = np.zeros(labels.shape, np.float32)
            weights[_inside(at, labels)] = 1
        case Object():
            weights = _component(region, labels, spec).astype(np.float32)
        case TargetBox(start, stop, predicted_only):
            weights = np.zeros(labels.shape, np.float32)
            weights[_spans(start, stop, labels)] = 1
            if predicted_only:
                weights *= own
        case Border(of, width):
            weights = _rim(region_weights(of, labels, index, spec, own) > 0, width)
        case _:
            weights = own.astype(np.float32)
    if not weights.any():
        raise NoSuchRegion(_empty(region, index, spec), fix=_empty_fix(region, labels, spec))
    return weights


def _class_in(region: Region, labels: Labels, spec: ModelSpec) -> int:
    match region:
        case Painted(mask, _):
            seen = labels[_fitting(mask, labels) > 0]
        case Point(at):
            return int(labels[_inside(at, labels)])
        case Object():
            return int(labels[_component(region, labels, spec)][0])
        case TargetBox(start, stop, _):
            seen = labels[_spans(start, stop, labels)]
        case Border(of, _):
            return _class_in(of, labels, spec)
        case _:
            seen = labels
    counts = np.bincount(seen.ravel(), minlength=len(spec.classes))
    if not counts.sum():
        raise NoSuchRegion(_empty(region, 1, spec), fix=_empty_fix(region, labels, spec))
    return int(counts[1:].argmax() + 1) if counts[1:].any() else 0 if not _is_predicted(region) else 1


def _is_predicted(region: Region) -> bool:
    return isinstance(region, Predicted)


def _component(region: Object, labels: Labels, spec: ModelSpec) -> NDArray[np.bool_]:
    numbered = objects(labels)
    count = int(numbered.max())
    number = region.number
    if number is None and region.at is not None:
        number = int(numbered[_inside(region.at, labels)])
        if number == 0:
            raise NoSuchRegion(
                f"There is no object at {region.at}: the model sees {spec.classes[0].name} there.",
                fix="Choose a pixel inside a predicted object.",
            )
    if number is None or not 1 <= number <= count:
        raise NoSuchRegion(
            f"There is no object {number}; the model finds {count}.",
            fix=f"Choose a number from 1 to {count}." if count else "Choose another image or model.",
        )
    component: NDArray[np.bool_] = numbered == number
    return component


def _fitting(mask: Labels, labels: Labels) -> Labels:
    mask = np.asarray(mask)
    if mask.shape != labels.shape:
        raise ImageMismatch(
            f"The mask has shape {mask.shape}, the image {labels.shape}.",
            fix="Paint the region on this image, or crop the mask to it.",
        )
    return mask.astype(np.int8) if mask.dtype == bool else mask


def _inside(at: tuple[int, ...], labels: Labels) -> tuple[int, ...]:
    if len(at) != labels.ndim or not all(0 <= p < n for p, n in zip(at, labels.shape, strict=True)):
        raise NoSuchRegion(
            f"The point {at} lies outside the image of shape {labels.shape}.",
            fix="Choose a point from 0 to the size minus 1, in the order of the axes (Y,X).",
        )
    return at


def _spans(start: tuple[int, ...], stop: tuple[int, ...], labels: Labels) -> Box:
    if not len(start) == len(stop) == labels.ndim:
        raise NoSuchRegion(
            f"The box {start} to {stop} does not have the {labels.ndim} axes of the image.",
            fix="Give a first and a last pixel for each axis, in their order (Y,X).",
        )
    if any(b <= a for a, b in zip(start, stop, strict=True)):
        raise NoSuchRegion(
            f"The box {start} to {stop} is empty: its second corner does not lie behind the first.",
            fix="Give the first pixel of each axis, and then the one behind the last.",
        )
    if any(b <= 0 or a >= n for a, b, n in zip(start, stop, labels.shape, strict=True)):
        raise NoSuchRegion(
            f"The box {start} to {stop} lies outside the image of shape {labels.shape}.",
            fix="Choose pixels from 0 to the size, in the order of the axes (Y,X).",
        )
    return tuple(slice(max(0, a), b) for a, b in zip(start, stop, strict=True))


def _rim(mask: NDArray[np.bool_], width: int) -> NDArray[np.float32]:
    inner = mask & ~ndimage.binary_erosion(mask, iterations=width)
    outer = ndimage.binary_dilation(mask, iterations=width) & ~mask
    rim: NDArray[np.float32] = inner.astype(np.float32) - outer.astype(np.float32)
    return rim


def _empty(region: Region, index: int, spec: ModelSpec) -> str:
    name = spec.classes[index].name
    if isinstance(region, Painted):
        return "The painted region is empty."
    if isinstance(region, TargetBox):
        return f"The box {region.start} to {region.stop} holds no pixel of class {name}."
    return f"The model finds no pixel of class {name} in this image."


def _empty_fix(region: Region, labels: Labels, spec: ModelSpec) -> str:
    if isinstance(region, Painted):
        return "Paint at least one pixel of the region to explain."
    found = ", ".join(spec.classes[i].name for i in np.unique(labels))
    return f"It finds {found}: choose one of these, or paint the region to explain."
