"""One image looked at by a prototype network: features and similarities computed once, everything else from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.errors import BadParameter, MissingNeed, NoSuchRegion
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.prototypes.editing import Added, Edited, PrototypeEdit, applied
from seglens.engine.prototypes.records import check_prototypes, cut, lit_box
from seglens.engine.resolve import check_size
from seglens.models.device import fine, fine_sum
from seglens.models.intake import check_fits, fit_intake, read_plain
from seglens.models.nets.proto_unet import EPS, PrototypeHead
from seglens.models.nets.unet import resized
from seglens.models.segmentation import SegmentationModel, quiet

CLOSE = 1e-3  # how far the network's logits may be from the sum over its prototypes, as a share of the largest


@dataclass(frozen=True)
class Contribution:
    """What one prototype brings to a logit: similarity times weight.

    Args:
        number, label: of the prototype.
        similarity: 0 (far) to 9.21 (the prototype itself), interpolated where the layer is coarser than the image.
        weight: what similarity with it counts for the class.
        product: similarity times weight; the products of all prototypes add up to the logit.
    """

    number: int
    label: str
    similarity: float
    weight: float
    product: float


class PrototypeView:
    """An image seen by a prototype network. Edits of the prototypes take no further pass through the network.

    Attributes:
        model, image: what was looked at.
        features: (D, *s) at the layer's resolution.
        similarities: (P, *s), by place (number minus 1), at the layer's resolution.
        shape: size of the image along the model's axes.
    """

    def __init__(self, model: SegmentationModel, image: Image, run: Run) -> None:
        """Look at the image: one pass through the network.

        Raises:
            MissingNeed: the model is no prototype network, or more than interpolation follows its prototypes.
            ImageMismatch: the image does not fit the model.
        """
        self.head: PrototypeHead = check_prototypes(model)
        if not model.layered:
            raise MissingNeed(
                f"{model.spec.name} is looked at in tiles, and its prototypes are compared within each.",
                fix="Leave out the tiles, or choose a part of the image.",
            )
        check_fits(image, model.spec)
        check_size(image, model)
        self.model, self.image = model, image
        self.shape = image.space(model.spec.axes)
        self._pixels = read_plain(image, model.spec)
        x = torch.from_numpy(fit_intake(image, model.spec).to_input(self._pixels)).unsqueeze(0).to(model.device)
        run.check()
        seen: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            with quiet(model.module), torch.inference_mode():
                logits = model.logits(x)
                self.similarities: Tensor = self.head.similarity(seen[-1])[0]
        finally:
            handle.remove()
        run.cost.forwards += 1
        run.check()
        self.features: Tensor = seen[-1][0]
        self._added: dict[bytes, Tensor] = {}
        self._check_linear(logits)

    def _check_linear(self, logits: Tensor) -> None:
        with torch.inference_mode():
            wrong = float((self._logits(applied(self.head, self.model.spec, None)) - logits[0]).abs().max())
        if wrong > CLOSE * max(1.0, float(logits.abs().max())):
            raise MissingNeed(
                f"{self.model.spec.name} does more behind its prototypes than to interpolate (logits differ by "
                f"{wrong:.2g}).",
                fix="Choose a network that ends in its prototype layer.",
            )

    def labels(self, edit: PrototypeEdit | None = None) -> NDArray[np.uint8]:
        """Class per pixel (*space) after an edit; without one, the network's own mask."""
        with torch.inference_mode():
            return self._logits(self._after(edit)).argmax(0).to(torch.uint8).cpu().numpy()

    def logits(self, edit: PrototypeEdit | None = None) -> NDArray[np.float32]:
        """Logits (K, *space) after an edit."""
        with torch.inference_mode():
            return np.asarray(self._logits(self._after(edit)).cpu().numpy(), np.float32)

    def at_image(self, number: int, edit: PrototypeEdit | None = None) -> NDArray[np.float32]:
        """Similarity with a prototype at every pixel of the image (*space), interpolated.

        Raises:
            BadParameter: there is no prototype of that number.
        """
        with torch.inference_mode():
            similarities = self._similar(self._after(edit))
            if not 1 <= number <= len(similarities):
                raise BadParameter(
                    f"There is no prototype {number}.", fix=f"Choose a number from 1 to {len(similarities)}."
                )
            return np.asarray(self._enlarged(similarities[number - 1][None])[0].cpu().numpy(), np.float32)

    def winners(self, edit: PrototypeEdit | None = None) -> NDArray[np.uint16]:
        """Number of the prototype that brings most to the class of each pixel (*space); 0 where none brings any."""
        with torch.inference_mode():
            after = self._after(edit)
            weight, labels = after.counting, self._logits(after).argmax(0)
            best = torch.zeros(self.shape, device=labels.device)
            winner = torch.zeros(self.shape, dtype=torch.int32, device=labels.device)
            for place, similarity in self._maps(after):
                share = weight[:, place][labels] * similarity
                winner[share > best] = place + 1
                best = torch.maximum(best, share)
            return winner.cpu().numpy().astype(np.uint16)

    def contributions(
        self, position: Sequence[int], edit: PrototypeEdit | None = None, of_class: int | None = None
    ) -> list[Contribution]:
        """What each prototype brings to the logit of a pixel, the largest share first.

        Args:
            position: the pixel, along the model's axes.
            edit: the prototypes to ask.
            of_class: index of the class; by default that of the pixel's mask.

        Raises:
            NoSuchRegion: the pixel lies outside.
        """
        if len(position) != len(self.shape) or not all(0 <= p < n for p, n in zip(position, self.shape, strict=True)):
            raise NoSuchRegion(
                f"The point {tuple(position)} lies outside the image of {'×'.join(map(str, self.shape))} pixels.",
                fix="Choose a pixel of the image.",
            )
        with torch.inference_mode():
            after = self._after(edit)
            similarity = self._at(self._similar(after), position)
            weight = fine(after.counting)
            chosen = int((weight @ similarity).argmax()) if of_class is None else of_class
        return self.shares(similarity.cpu().numpy(), weight[chosen].cpu().numpy(), edit)

    def shares(
        self, similarity: NDArray[Any], weight: NDArray[Any], edit: PrototypeEdit | None = None
    ) -> list[Contribution]:
        """The shares of the prototypes that count, from (P',) similarities and weights; the largest first."""
        after = self._after(edit)
        classes, owner = self.model.spec.classes, after.owner.tolist()
        rows = [
            Contribution(place + 1, classes[owner[place]].name, float(s), float(w), float(s * w))
            for place, (s, w) in enumerate(zip(similarity, weight, strict=True))
            if bool(after.active[place])
        ]
        return sorted(rows, key=lambda row: -abs(row.product))

    def over(self, weights: Tensor, edit: PrototypeEdit | None = None) -> NDArray[np.float64]:
        """Similarity with each prototype, summed over pixels with weights (*space): (P',) in double precision."""
        with torch.inference_mode():
            sums = [fine_sum(weights * similarity) for _, similarity in self._maps(self._after(edit))]
            return np.array([float(s) for s in sums])

    def taken(self, position: Sequence[int], label: str) -> Added:
        """A new prototype: the features of a pixel of this image, for :attr:`PrototypeEdit.added`.

        The features are those of the layer's pixel that covers it.
        """
        spec = self.model.spec
        spec.class_index(label)
        padded = self.model.padded(self.shape)
        sizes = tuple(self.features.shape[1:])
        at = [int(p * n // full) for p, n, full in zip(position, sizes, padded, strict=True)]
        vector = self.features.movedim(0, -1)[tuple(at)]
        lit = self._one(vector)
        box = lit_box(self._enlarged(lit[None])[0].cpu().numpy(), position)
        record = {
            "image": self.image.fingerprint(),
            "name": self.image.name,
            "source": self.image.source,
            "position": [int(p) for p in position],
            "box": [list(part) for part in box],
            "crop": cut(self._pixels, box, position),
        }
        return Added(vector.cpu().numpy(), label, record)

    def _after(self, edit: PrototypeEdit | None) -> Edited:
        return applied(self.head, self.model.spec, edit)

    def _similar(self, after: Edited) -> Tensor:
        """Similarities (P', *s) with the prototypes after an edit."""
        if not len(after.vectors):
            return self.similarities
        return torch.cat([self.similarities, torch.stack([self._one(vector) for vector in after.vectors])])

    def _one(self, vector: Tensor) -> Tensor:
        """Similarity with one more prototype (*s); kept, since edits are asked for again and again."""
        key = vector.cpu().numpy().tobytes()
        if key not in self._added:
            self._added[key] = alike(self.features, vector)
        return self._added[key]

    def _logits(self, after: Edited) -> Tensor:
        similarities = self._similar(after)
        mixed = after.counting @ similarities.flatten(1)
        return self._enlarged(mixed.reshape(-1, *similarities.shape[1:]))

    def _enlarged(self, maps: Tensor) -> Tensor:
        """(N, *s) at image size (N, *space)."""
        full = resized(maps[None], self.model.padded(self.shape))[0]
        return full[(slice(None), *(slice(0, n) for n in self.shape))]

    def _maps(self, after: Edited) -> Iterator[tuple[int, Tensor]]:
        """Place and similarity at image size (*space) of every prototype, one at a time."""
        for place, similarity in enumerate(self._similar(after)):
            yield place, self._enlarged(similarity[None])[0]

    def _at(self, maps: Tensor, position: Sequence[int]) -> Tensor:
        """Maps (P, *s) interpolated at one pixel of the image: (P,) in double precision."""
        values = maps
        for p, full in zip(position, self.model.padded(self.shape), strict=True):
            # the first space axis goes, the next one becomes the first
            size = values.shape[1]
            place = max(0.0, (p + 0.5) * size / full - 0.5)
            low = min(int(place), size - 1)
            part = place - low
            values = (1 - part) * fine(values[:, low]) + part * fine(values[:, min(low + 1, size - 1)])
        return values


def alike(features: Tensor, vector: Tensor) -> Tensor:
    """Similarity of features (D, *s) with one vector (D,): (*s)."""
    distance = fine(features - vector.reshape(-1, *[1] * (features.ndim - 1))).square().sum(0)
    return ((distance + 1) / (distance + EPS)).log().to(features.dtype)
