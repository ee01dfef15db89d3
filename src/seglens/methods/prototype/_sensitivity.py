"""How a target follows a layer: its gradient there, at the asked region and at others of the class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from seglens.core.errors import Cancelled, NoSuchRegion, SegLensError
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.target import Predicted, Target
from seglens.engine.case import Case
from seglens.engine.gradients import layer_gradient
from seglens.engine.resolve import resolve
from seglens.engine.target import FrozenTarget, objects
from seglens.methods.prototype._bank import bank_of
from seglens.models.device import fine_sum
from seglens.models.layers import find_layer

Over = Literal["objects", "images"]
EACH = 5  # objects of an image besides the asked one


@dataclass(frozen=True, eq=False)
class Example:
    """One region whose target was followed to a layer.

    Args:
        image: its image's name.
        what: the object's number, or the class.
        pixels: how many count.
        gradient: the sum over places of the target's gradient at the layer (D,).
    """

    image: str
    what: str
    pixels: int
    gradient: NDArray[np.float64]


def examples(case: Case, layer: str, count: int, over: Over) -> list[Example]:
    """The asked region first, then others of its class: of this image, of the references, of the bank's images.

    Args:
        case: the question.
        layer: where.
        count: how many at most.
        over: whether every object of the class is an example, or all of the class in an image.
    """
    _, gradient = case.activations(layer)
    found = [Example(case.image.name, "asked region", case.target.pixels, _sum(gradient))]
    case.run.progress(1, count, "examples")
    for which, what, target in _targets(case, over):
        if len(found) >= count:
            break
        module = find_layer(case.model, layer)
        _, gradient = layer_gradient(case.model, module, which.x, target, case.run)
        found.append(Example(which.image.name, what, target.pixels, _sum(gradient)))
        case.run.progress(len(found), count, "examples")
    return found


def _targets(case: Case, over: Over) -> Iterator[tuple[Case, str, FrozenTarget]]:
    """Further regions of the class, with the value and reduction of the asked one."""
    mine = [(case, *rest) for rest in _regions(case, over, case)] if over == "objects" else []
    yield from mine[:EACH]
    for image in _images(case):
        try:
            other = resolve(image, case.model, Target(case.target.name, Predicted()), case.run)
        except NoSuchRegion:
            continue
        except SegLensError as error:
            if isinstance(error, Cancelled):
                raise
            case.run.note(f"{image.name} is left out: {error.what}")
            continue
        yield from ((other, *rest) for rest in [*_regions(other, over, case)][:EACH])
    yield from mine[EACH:]


def _regions(which: Case, over: Over, asked: Case) -> Iterator[tuple[str, FrozenTarget]]:
    if over == "images":
        yield asked.target.name, _target(asked, which.labels == asked.target.index, which)
        return
    numbers = objects(which.labels)
    for number in np.unique(numbers[which.labels == asked.target.index]):
        region = numbers == number
        if number > 0 and not (which is asked and np.array_equal(region, asked.target.region)):
            yield f"object {number}", _target(asked, region, which)


def _target(asked: Case, region: NDArray[np.bool_], which: Case) -> FrozenTarget:
    weights = torch.from_numpy(region.astype(np.float32)).to(which.logits.device)
    return replace(asked.target, weights=weights, live=False)


def _images(case: Case) -> Iterator[Image]:
    """References, then images of the bank that have the class and can be opened again."""
    yield from case.reference
    bank, spoken = bank_of(case), set[tuple[Any, ...]]()
    known = {case.image.fingerprint()} | {image.fingerprint() for image in case.reference}
    for row in bank.rows(predicted=case.target.name):
        entry = bank.entries([int(row)])[0]
        key = (entry.image, *sorted(entry.select.items()))
        if key in spoken or not entry.source or entry.image in known:
            continue
        spoken.add(key)
        image = _opened(entry.source, entry.image, case)
        if image is not None:
            yield image.select(**entry.select) if entry.select else image


def _opened(source: str, fingerprint: str, case: Case) -> Image | None:
    """An image of the bank as the bank read it; ``None`` if it is not there any more, or cannot be read like that."""
    # the bank does not say how its files were read, so that the ways of the asked image are tried, too
    failed: SegLensError | None = None
    for axes in dict.fromkeys((None, case.image.axes)):
        try:
            image = open_image(source, axes=axes)
            views = [image] if case.image.channels is None else [image.with_channels(case.image.channels), image]
        except SegLensError as error:
            failed = error
            continue
        for view in views:
            if view.fingerprint() == fingerprint:
                return view
    told = f"is left out: {failed.what}" if failed else "is not as the bank knows it, and is left out."
    case.run.note(f"{source} {told}")
    return None


def _sum(gradient: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(fine_sum(gradient[0].flatten(1), 1).cpu().numpy())
