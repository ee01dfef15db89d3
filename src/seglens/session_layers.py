"""One method at every depth of a network, from encoder to decoder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from numpy.typing import NDArray

from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter, UnknownName
from seglens.core.explanation import Explanation, Record
from seglens.core.image import Image
from seglens.core.method import Method
from seglens.core.run import Run
from seglens.core.target import Target
from seglens.engine.artefacts import prepared
from seglens.engine.channels import stages
from seglens.engine.depths import Depths
from seglens.engine.fast import at_rest
from seglens.engine.record import record
from seglens.engine.resolve import resolve
from seglens.engine.turns import Turns
from seglens.models.layers import LayerInfo, layers
from seglens.models.segmentation import SegmentationModel

Which = Literal["depths", "all"]

__all__ = ["Which", "explain_layers", "layers_of", "parameter_of", "strip_record"]


def layers_of(model: SegmentationModel, which: Which = "depths") -> tuple[LayerInfo, ...]:
    """The layers of a strip, from input to output: one for each depth, or every one that answers a map.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript.
    """
    return stages(model) if which == "depths" else layers(model)


def explain_layers(
    method: str | Method,
    image: Image,
    model: SegmentationModel,
    target: Target | None = None,
    *,
    at: Which | list[str] | tuple[str, ...] = "depths",
    run: Run | None = None,
    reference: tuple[Image, ...] = (),
    annotation: NDArray[Any] | None = None,
    annotation_source: str = "",
    **parameters: Any,
) -> Iterator[Explanation]:
    """Ask one method at one layer after another; the answers come one by one, each with a record of its own.

    Activations and gradients of many layers come from one forward and one backward pass. A layer at which the method
    cannot answer is left out, with a note.

    Args:
        at: one layer for each depth of the network (``depths``), every layer that answers a map (``all``), or names.
        method, image, model, target, run, reference, annotation, annotation_source, parameters: as
            :func:`seglens.session.explain` takes them; the parameter that names the layer is set here.

    Raises:
        BadParameter: the method looks at no layer, or refuses every one; or its layer is among the parameters.
        UnknownName: there is no such layer.
        SegLensError: as :func:`seglens.session.explain`.
    """
    run, target = run or Run(), target or Target()
    recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
    name = parameter_of(recipe)
    if parameters.get(name) is not None:
        raise BadParameter(
            f"{name}={parameters[name]} was given, and {recipe.title} is to be asked at layer after layer.",
            fix=f"Leave out {name}, or name it in at=[{parameters[name]!r}].",
        )
    refused: BadParameter | None = None
    answered = False
    with at_rest(model):
        case = resolve(image, model, target, run, method=recipe, reference=reference, annotation=annotation)
        order = layers_of(model, at) if isinstance(at, str) else _named(model, at)
        turns = Turns(run, len(order))
        asked = Depths.of(replace(case, run=turns.run), order)
        drawn = "" if annotation is None else annotation_source or "MASK"
        for info in order:
            turns.next(info.name)
            one = type(recipe).from_values(recipe.values() | {name: info.name})
            start = time.perf_counter()
            try:
                one.check(asked)
                answer = one.run(prepared(one, asked))
            except BadParameter as error:
                refused = error
                run.note(f"Left out {info.name}: {error.what}")
                continue
            answered = True
            yield answer.with_record(record(one, asked, target, time.perf_counter() - start, annotation=drawn))
        run.progress(len(order), len(order), "layers")
    if refused is not None and not answered:
        raise refused


def parameter_of(method: Method) -> str:
    """The name of the parameter that says at which layer a method looks.

    Raises:
        BadParameter: it looks at no layer.
    """
    named = [p.name for p in method.parameters() if p.param.source == "layers"]
    if not named:
        raise BadParameter(
            f"{method.title} looks at no layer, so there are no layers to go through.",
            fix="Choose a class activation map, for example seg-grad-cam.",
        )
    return "layer" if "layer" in named else named[0]


def strip_record(one: Record, method: Method, at: Which) -> Record:
    """The record of a whole strip, made of that of one of its answers."""
    asked = one.asked | {"all-layers" if at == "all" else "all-depths": True}
    return replace(one, parameters=one.parameters | {parameter_of(method): None}, asked=asked)


def _named(model: SegmentationModel, names: Sequence[str]) -> tuple[LayerInfo, ...]:
    known = {info.name: info for info in layers(model)}
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise UnknownName.among("layer", missing, known, listing=f"{model.spec.name} has {len(known)} layers.")
    return tuple(known[name] for name in names)
