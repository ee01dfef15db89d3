"""What a method of explanation is."""

from __future__ import annotations

import hashlib
import inspect
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from seglens.core.configured import Configured
from seglens.core.explanation import Explanation

if TYPE_CHECKING:
    import numpy as np

    from seglens.engine.case import Case
    from seglens.models.spec import ModelSpec


class Fidelity(StrEnum):
    """How close the method is to its publication."""

    EXACT = "exact"
    SMALL = "small"  # the same method with a smaller generator or backbone
    AFTER = "after"  # our formulation: shown as "after [ref]"


class Need(StrEnum):
    """What a method needs beyond forward passes of the model."""

    GRADIENT = "gradient"
    LAYER = "layer"
    ATTENTION = "attention"  # a transformer
    DROPOUT = "dropout"  # a network that was trained with it
    REFERENCE = "reference"  # other images
    BANK = "bank"  # embeddings of many images
    PROTOTYPES = "prototypes"  # a network with a prototype layer
    ANNOTATORS = "annotators"  # a network that was trained with several annotators
    ANNOTATION = "annotation"  # a mask that a person drew
    TRAINING = "training"  # prepares something before it can answer
    SECOND_MODEL = "second model"


class Scope(StrEnum):
    """What one explanation is about."""

    PIXEL = "pixel"
    REGION = "region"
    IMAGE = "image"
    DATASET = "dataset"


class Timing(StrEnum):
    """Whether any finished model can be explained, or only one built for it."""

    POST_HOC = "post-hoc"
    AD_HOC = "ad-hoc"


@dataclass(frozen=True)
class Artefact:
    """What :meth:`Method.prepare` leaves for later runs: arrays and plain data, never pickles."""

    arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


class Method(Configured):
    """One file, one class: parameters as fields, its card as class attributes, and :meth:`run`.

    Class attributes:
        title: name as in the paper.
        cite: key into ``docs/references.bib``.
        survey: the survey's reference numbers.
        fidelity, scope, timing, needs: see the enums here.
        takes: what it makes use of where it is given, and does without else.
        works_on: which models it runs on, in a word or two.
        min_classes: how many classes, background included, the model must answer at least.
        few_classes: why not fewer, as the end of a sentence, where ``min_classes`` is above 2.
        class_blind: it shows what the network looks at, the same for every class; not what counts for its answer.
        locates: its first heat or signed map says where the evidence is (an edited image does not).
        places: it explains pixels, and any model's; without, it explains whole objects by what can be measured of
            them, needs an image with several, and its map cannot be compared with planted pixels.
    """

    cite: ClassVar[str] = ""
    survey: ClassVar[tuple[int, ...]] = ()
    fidelity: ClassVar[Fidelity] = Fidelity.EXACT
    scope: ClassVar[Scope] = Scope.REGION
    timing: ClassVar[Timing] = Timing.POST_HOC
    works_on: ClassVar[str] = "any model"
    needs: ClassVar[frozenset[Need]] = frozenset()
    takes: ClassVar[frozenset[Need]] = frozenset()
    dims: ClassVar[tuple[int, ...]] = (2, 3)
    min_classes: ClassVar[int] = 2
    few_classes: ClassVar[str] = ""
    class_blind: ClassVar[bool] = False
    locates: ClassVar[bool] = True
    places: ClassVar[bool] = True

    def check(self, case: Case) -> None:
        """Raise what is wrong with this case for this method, before the work starts."""

    def prepare(self, case: Case) -> Artefact | None:
        """Make what later runs reuse (a trained network, a bank); ``None`` if there is nothing to make."""
        return None

    def looks_at(self, case: Case) -> tuple[str, ...]:
        """What :meth:`prepare` looks at besides the model: the same again, and nothing is prepared again.

        By default everything that was given. A method that prepares from its references alone says so here, and then
        serves any image.
        """
        images = [image.fingerprint() for image in (case.image, *case.reference)]
        drawn = "" if case.annotation is None else hashlib.sha256(case.annotation.tobytes()).hexdigest()
        return (*images, drawn, case.target.key.hex())

    def passes(self, case: Case) -> tuple[float, int] | None:
        """What a run will about take: forwards of the whole image, and those of a straight loop; ``None``: unknown."""
        return None

    def run(self, case: Case) -> Explanation:
        """Answer the question."""
        raise TypeError(f"{type(self).__name__} has no run()")

    @classmethod
    def unfit(cls, spec: ModelSpec, layered: bool = True) -> tuple[str, str] | None:
        """Why it cannot run on such a model, as the end of a sentence, and what to do; ``None`` if it can.

        Args:
            spec: what the model expects and answers.
            layered: whether modules inside can be tapped.
        """
        if spec.ndim not in cls.dims:
            dims = " and ".join(f"{d}-D" for d in cls.dims)
            return f"works on {dims} models; {spec.name} is {spec.ndim}-D", "Choose another method."
        if len(spec.classes) < cls.min_classes:
            why = f" ({cls.few_classes})" if cls.few_classes else ""
            return (
                f"needs {cls.min_classes} classes or more{why}; {spec.name} has {len(spec.classes)}",
                "Choose a model that tells more classes apart, or another method.",
            )
        if Need.LAYER in cls.needs and not layered:
            return (
                f"looks inside the network, and {spec.name} is an exported graph or in tiles, without layers of its "
                "own",
                "Load the network as a state dict, safetensors or factory, leave out --tile, or choose a method "
                "without layers.",
            )
        return None

    @classmethod
    def summary(cls) -> str:
        """One sentence for lists: the first line of the method's file, without the name before the colon."""
        text = (inspect.getdoc(sys.modules[cls.__module__]) or cls.title).splitlines()[0]
        told = text.partition(": ")[2] or text
        return told[0].upper() + told[1:]

    @classmethod
    def card(cls) -> dict[str, Any]:
        """What ``seglens methods --json`` tells."""
        return {
            "name": cls.name,
            "title": cls.title,
            "summary": cls.summary(),
            "family": cls.family,
            "scope": str(cls.scope),
            "timing": str(cls.timing),
            "range": cls.works_on,
            "needs": sorted(map(str, cls.needs)),
            "takes": sorted(map(str, cls.takes)),
            "fidelity": str(cls.fidelity),
            "cite": cls.cite,
            "survey": list(cls.survey),
            "dims": list(cls.dims),
            "min_classes": cls.min_classes,
            "parameters": [_parameter_card(p) for p in cls.parameters()],
        }


def _parameter_card(parameter: Any) -> dict[str, Any]:
    p = parameter.param
    limits = {k: getattr(p, k) for k in ("ge", "gt", "le", "lt", "step") if getattr(p, k) is not None}
    return {
        "name": parameter.name,
        "type": parameter.type.__name__,
        "default": parameter.default,
        "optional": parameter.optional,
        "choices": list(parameter.choices),
        "source": p.source,
        "unit": p.unit,
        "help": p.help,
        **limits,
    }
