"""A resolved question: model, image, target, run. It holds data and forwards to the engine's verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.boxes import Box, at_box, whole
from seglens.core.errors import BadParameter, OutOfMemory
from seglens.core.image import Image
from seglens.core.method import Artefact
from seglens.core.param import FillName, UnitName
from seglens.core.run import Run
from seglens.engine import gradients, infill
from seglens.engine.appetite import fits
from seglens.engine.clean import Clean
from seglens.engine.evaluator import Evaluator, LayerChange
from seglens.engine.perturb import Covered, Perturbations
from seglens.engine.reach import find_reach
from seglens.engine.rules import Flow, Rules, Trace
from seglens.engine.sampled import Sampled, Sampler
from seglens.engine.target import FrozenTarget
from seglens.engine.together import together
from seglens.engine.units import Units, make_units
from seglens.models.intake import Intake
from seglens.models.layers import default_layer, find_layer
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiled import TiledModel

if TYPE_CHECKING:
    from seglens.engine.features import FeatureBank


@dataclass(frozen=True, eq=False)
class Case:
    """Everything a method may ask for; made by :func:`seglens.engine.resolve.resolve`.

    Args:
        model: what is explained.
        image: the view that is explained; its axes are the model's (and channels).
        clean: the clean input, its logits, and the target that is frozen on them.
        run: progress, cancel, seed.
        intake: the frozen normalisation.
        reference: further images, for methods that compare.
        annotation: a mask that a person drew (*space).
        second: the same question to a second model.
        bank: embeddings of many images by this model, for methods that look examples up.
        artefact: what the method prepared earlier.
        shared: what scores copies for this target and others at once; ``None`` makes one for this target alone.
    """

    model: SegmentationModel
    image: Image
    clean: Clean
    run: Run
    intake: Intake
    reference: tuple[Image, ...] = ()
    annotation: NDArray[Any] | None = None
    second: Case | None = None
    bank: FeatureBank | None = None
    artefact: Artefact | None = None
    shared: Evaluator | None = None

    @property
    def x(self) -> Tensor:
        """Clean input (1, C, *space) on the model's device."""
        return self.clean.x

    @property
    def logits(self) -> Tensor:
        """Logits of the clean image (1, K, *space)."""
        return self.clean.logits

    @property
    def target(self) -> FrozenTarget:
        """Class and region, frozen on the clean image."""
        return self.clean.target

    def about(self, target: FrozenTarget, **changes: Any) -> Case:
        """The same question about another target."""
        return replace(self, clean=self.clean.about(target), **changes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of space."""
        return tuple(self.x.shape[2:])

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Predicted class per pixel of the clean image (*space)."""
        labels: NDArray[np.uint8] = self.classes(self.logits)[0]
        return labels

    def classes(self, logits: Tensor) -> NDArray[np.uint8]:
        """Predicted class per pixel, (N, K, *space) to (N, *space)."""
        return logits.argmax(1).to(torch.uint8).cpu().numpy()

    def drawn(self, logits: Tensor | None = None) -> NDArray[np.bool_]:
        """Where logits (1, K, *space), by default the clean image's, draw the target's class (*space)."""
        drawn: NDArray[np.bool_] = self.target.drawn(self.logits if logits is None else logits)[0].cpu().numpy()
        return drawn

    def score(self, logits: Tensor) -> Tensor:
        """The target's number per sample, (N, K, *space) to (N,)."""
        return self.target(logits)

    @property
    def clean_score(self) -> float:
        """The target's number on the clean image."""
        return float(self.evaluator.clean[self._column])

    @cached_property
    def evaluator(self) -> Evaluator:
        """What scores perturbed copies of this image."""
        return self.shared or Evaluator(self.model, self.x, self.logits, (self.target,), self.run)

    @property
    def _column(self) -> int:
        return self.evaluator.targets.index(self.target)

    @property
    def field(self) -> Box:
        """The part of the image on which the target can depend; all of it where the model's reach is global.

        What lies outside has no influence at all, so a method looks for units, cells and windows in here.
        """
        return self.evaluator.field

    @property
    def sees_everywhere(self) -> bool:
        """Whether any pixel may influence any other in the network: by attention, or as its contrast is evened out."""
        whole_model = self.model.whole if isinstance(self.model, TiledModel) else self.model
        return find_reach(whole_model, self.run) is None

    @property
    def cheap_field(self) -> Box:
        """The same of this target alone, for one pass: all of the image where a crop would cost more than it saves."""
        engine = self.evaluator
        if len(engine.targets) == 1:
            return engine.cheap_field
        return self.sampler.field if engine.crops_pay else whole(self.shape)

    @property
    def local(self) -> SegmentationModel:
        """What answers for the :attr:`field` alone as the model does for the whole; in tiles, the same tiles."""
        return self.model.within(self.field, self.shape)

    def scores(self, perturbations: Perturbations, text: str = "evaluations") -> Tensor:
        """The target's number for every perturbed copy (N,), float64 on the CPU."""
        return self.evaluator.scores(perturbations, text)[:, self._column]

    def score_steps(self, perturbations: Perturbations, text: str = "evaluations") -> Iterator[tuple[Tensor, Tensor]]:
        """The same bit by bit, in any order: which copies (n,), and their numbers (n,); for anytime answers.

        A method that has enough may stop asking: what has not been scored costs nothing.
        """
        for scored in self.evaluator.steps(perturbations, text):
            yield scored.index, scored.scores[:, self._column]

    def forward(self, x: Tensor, model: SegmentationModel | None = None) -> Tensor:
        """Logits (N, K, *space) of input (N, C, *space), without gradients; of a crop with :attr:`local`."""
        self.run.check()
        self.run.cost.forwards += len(x)
        with gradients.guarded(self.model), torch.inference_mode():
            return (model or self.model).logits(x.to(self.model.device))

    @cached_property
    def sampler(self) -> Sampler:
        """What takes gradients of this target; its :attr:`~Sampler.field` is that of the target alone."""
        return Sampler(self.evaluator, self.target)

    def gradient(self, x: Tensor | None = None) -> Tensor:
        """Gradient of the target with respect to the input (N, C, *space); the clean one by default.

        Outside the :attr:`field` it is zero, and what lies there is not even looked at.
        """
        if x is None:
            if (shared := self._together(())) is not None:
                return shared[0][1]
            if (opened := self._opened()) is not None:
                return opened
        return self.sampler.gradient(self.x if x is None else x)[0]

    def _together(self, modules: tuple[nn.Module, ...]) -> list[tuple[Tensor, Tensor]] | None:
        """Input or layers, and gradients there, from passes for all targets at once, where these are cheaper."""
        return None if self.shared is None else together(self.shared, modules).at(self.target)

    def _opened(self) -> Tensor | None:
        """The gradient by the very pass that freezes the target, if nobody has made it yet and the image fits."""
        if not self.clean.opens or not fits(self.model, self.shape, self.run):
            return None
        try:
            with gradients.guarded(self.model):
                _, found = gradients.forward_backward(self.model, self.x, self.clean.score, self.run)
        except OutOfMemory:
            return None  # it goes in pieces, then
        self.run.engine.setdefault("gradients", []).append({"copies": 1, "batch": 1})
        return found

    def backward(self, rules: Rules, x: Tensor | None = None) -> Flow:
        """What comes back to the input by other rules than the gradient's; see :mod:`seglens.engine.rules`."""
        return Trace(self, rules, x).back()

    def gradient_steps(self, copies: Perturbations, text: str = "gradients") -> Iterator[Sampled]:
        """The target's gradient at each of many copies of the image, batch by batch and in order.

        A method that has enough may stop asking: what has not been looked at costs nothing.
        """
        return self.sampler.steps(copies, text)

    def activations(self, layer: str) -> tuple[Tensor, Tensor]:
        """Activations of a layer on the clean image and the target's gradient there, both (1, K, *s)."""
        return self.activations_at([layer])[0]

    def activations_at(self, layers: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """The same for several layers, in one forward and one backward pass.

        The pass back looks at the :attr:`field` alone, where the layers' maps of it lie on those of the image.
        """
        modules = [find_layer(self.model, layer) for layer in layers]
        if (shared := self._together(tuple(modules))) is not None:
            return shared
        if self.clean.opens:
            return gradients.layer_gradients(self.model, modules, self.x, self.clean.score, self.run)
        clean = self.clean_at(layers) if self.clean.fresh else None
        box = self.cheap_field
        if box != whole(self.shape):
            clean = clean or self.clean_at(layers)
            part, at = self.model.within(box, self.shape), at_box(box)
            near = gradients.layer_gradients(part, modules, self.x[at], self.target.within(box), self.run)
            sizes = self.model.padded(self.shape), part.padded(tuple(s.stop - s.start for s in box))
            found = [gradients.placed(one, a, box, *sizes) for one, a in zip(near, clean, strict=True)]
            inside = [(a, g) for a, g in zip(clean, found, strict=True) if g is not None]
            if len(inside) == len(layers):
                self.run.engine["crop"] = [[s.start, s.stop] for s in box]
                return inside
            self.run.note("A layer's map of the crop does not lie on that of the image, so the whole is looked at.")
        return gradients.layer_gradients(self.model, modules, self.x, self.target, self.run)

    def activation(self, layer: str) -> Tensor:
        """What a layer answers to the clean image, (1, K, *s), without gradients."""
        return self.clean_at([layer])[0]

    def clean_at(self, layers: Sequence[str]) -> list[Tensor]:
        """What layers answer to the clean image, (1, K, *s) each, without gradients, in one forward pass."""
        modules = [find_layer(self.model, layer) for layer in layers]
        return gradients.layer_activations(self.model, modules, self.x, self.run, self.clean.see)

    def enlarged(self, values: Tensor) -> Tensor:
        """Maps of a layer (N, C, *s) at image size (N, C, *space); what the network padded is cut off."""
        mode = "bilinear" if len(self.shape) == 2 else "trilinear"
        full = F.interpolate(values.float(), self.model.padded(self.shape), mode=mode, align_corners=False)
        return full[(slice(None), slice(None), *(slice(0, n) for n in self.shape))]

    def at_image(self, values: Tensor) -> NDArray[np.float32]:
        """A layer's map (1, 1, *s) at image size (*space)."""
        return np.asarray(self.enlarged(values)[0, 0].cpu().numpy(), dtype=np.float32)

    def layer(self, wanted: str | None) -> str:
        """The layer's name; without one, the default found by looking at the network."""
        if wanted is None:
            self.run.check()
            return default_layer(self.model)
        find_layer(self.model, wanted)
        return wanted

    def layer_steps(self, layer: str, change: LayerChange, text: str = "channels") -> Iterator[tuple[Tensor, Tensor]]:
        """The target's number with a layer's answer changed, bit by bit: which (n,), and their numbers (n,).

        What lies before the layer runs once. The layer's answer is that to the :attr:`field` of the image.
        """
        for scored in self.evaluator.layer_steps(find_layer(self.model, layer), change, text):
            yield scored.index, scored.scores[:, self._column]

    def passes(self, perturbations: Perturbations) -> tuple[float, int]:
        """What scoring takes: forwards of the whole image, and those of a straight loop."""
        how = self.evaluator.plan(perturbations)
        return how.images, how.count

    def fill(self, name: FillName, *, without: Tensor | None = None, units: Units | None = None) -> Tensor:
        """What replaces covered pixels (1, C, *space); see :mod:`seglens.engine.infill`.

        Args:
            name: one of the fills.
            without: (*space) boolean: what ``rest-mean`` leaves out; by default the target's region.
            units: needed by ``unit-mean`` and ``inpaint``.

        Raises:
            BadParameter: a fill that needs units, without them.
        """
        own = None if units is None else infill.unit_fill(name, self.x, units)
        if own is not None:
            return own
        if name in ("unit-mean", "inpaint"):
            raise BadParameter(
                f"The fill {name} depends on what is covered.", fix="Use mean, blur, noise or a grey level."
            )
        if without is None and name == "rest-mean":
            without = self.target.weights != 0
        return infill.fill(name, self.x, self.intake, generator=self.generator(), without=without)

    def cover(self, boxes: Sequence[Box], name: FillName, only: Tensor | None = None) -> Covered:
        """Copies with one window each covered; every fill has its meaning for windows here."""
        fill: Tensor | Callable[[Box], Tensor] = infill.own_fill(name, self.x) or self.fill(name)
        return Covered(self.x, fill, boxes, only)

    def units(self, kind: UnitName, count: int) -> Units:
        """What is taken away as one, where the target can see it; see :func:`seglens.engine.units.make_units`."""
        return make_units(self, kind, count)

    def paste(self, values: Tensor) -> Tensor:
        """Values of the field (*field) in a whole map (*space), zero around it."""
        out = values.new_zeros(self.shape)
        out[self.field] = values
        return out

    def generator(self) -> torch.Generator:
        """A fresh source of random numbers from the run's seed, on the CPU."""
        return torch.Generator().manual_seed(self.run.seed)

    def intensities(self, x: Tensor) -> NDArray[np.float32]:
        """Model input (1, C, *space) as intensities of the image, to be shown: (*space, C), grey (*space)."""
        shown = self.intake.to_intensity(x[0].cpu().numpy())
        return shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1)
