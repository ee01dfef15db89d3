"""What worker threads do. Only here the engine (and with it torch) is imported, inside the functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seglens.app.napari.jobs import Emit
from seglens.app.napari.results import Limits, limits_of
from seglens.app.napari.sofar import Partial
from seglens.app.napari.strip import Depth
from seglens.app.napari.viewer_session import ZooEntry
from seglens.core.errors import SegLensError
from seglens.core.explanation import Explanation, Record
from seglens.core.image import Image
from seglens.core.method import Method
from seglens.core.run import Run
from seglens.core.target import Target
from seglens.core.threads import wait_politely
from seglens.models.spec import ModelSpec, read_spec


@dataclass(frozen=True)
class Told:
    """What the engine told when it was loaded."""

    device: str
    label: str
    why: str
    zoo: tuple[ZooEntry, ...]
    methods: tuple[type[Method], ...]
    broken: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model and what a form needs to know of it."""

    model: Any
    spec: ModelSpec
    layers: tuple[str, ...]
    chosen: str
    depths: tuple[str, ...] = ()


def preload(run: Run, emit: Emit, *, device: str) -> Told:
    """Import torch, the methods and the models that come along."""
    wait_politely()
    from seglens.models.device import choose_device

    try:
        found = choose_device(device)
    except SegLensError as error:
        run.note(str(error))
        found = choose_device("auto")
    methods, broken = _methods()
    return Told(found.name, found.label, found.why, _zoo(), methods, broken)


def load(run: Run, emit: Emit, *, source: str, trusted: bool, device: str) -> Loaded:
    """Load a model.

    Raises:
        UntrustedModel: the file can run code and nobody has allowed it.
        ModelMismatch: it is not a model.
    """
    from seglens.models.layers import default_layer, layers
    from seglens.models.loaders import load_model
    from seglens.models.trust import Trust
    from seglens.session_layers import layers_of

    trust = Trust.always() if trusted else Trust.never()
    model = load_model(source, trust=trust, device=device)
    names = tuple(info.name for info in layers(model)) if model.layered else ()
    chosen = default_layer(model) if names else ""
    depths = tuple(info.name for info in layers_of(model)) if names else ()
    return Loaded(model, model.spec, names, str(getattr(chosen, "name", chosen) or ""), depths)


def segment(run: Run, emit: Emit, *, views: list[Image], model: Any, tile: int | None, halo: int | None) -> list[str]:
    """Segment some views tile by tile; each piece is handed over with the number of its view.

    Raises:
        SegLensError: what the engine says.
    """
    from seglens.session import segment_steps

    tell = run.on_progress
    for number, view in enumerate(views):
        if tell is not None and len(views) > 1:
            run.on_progress = _part(tell, number, len(views))
        for piece in segment_steps(view, model, run=run, tile=tile, halo=halo):
            emit((number, piece))
    return run.notes


def explain(
    run: Run, emit: Emit, *, method: Method, image: Image, model: Any, target: Target, annotation: Any = None,
    bank: str = "",
) -> tuple[Explanation, list[Limits]]:  # fmt: skip
    """Ask one question; the answer comes with its display limits, and so do answers on the way.

    Raises:
        SegLensError: what the engine says.
    """
    from seglens.session import explain as ask

    run.on_partial = lambda answer: _hand_over(answer, emit)
    answer = ask(method, image, model, target, run=run, annotation=annotation, bank=bank or None)
    return answer, limits_of(answer)


def compare_fills(
    run: Run, emit: Emit, *, method: Method, image: Image, model: Any, target: Target, annotation: Any = None
) -> tuple[Explanation, list[Limits]]:
    """Ask one question with every fill; the answer comes with its display limits, and so do answers on the way.

    Raises:
        SegLensError: what the engine says.
    """
    from seglens.session import compare_fills as ask

    run.on_partial = lambda answer: _hand_over(answer, emit)
    answer = ask(method, image, model, target, run=run, annotation=annotation)
    return answer, limits_of(answer)


class Live:
    """An image and a model that questions are asked about, one after another.

    Args:
        image: the view.
        model: the model.
    """

    def __init__(self, image: Image, model: Any) -> None:
        """The engine enters with the first question."""
        self.image, self.model = image, model
        self._question: Any = None

    def holds(self, image: Image, model: Any) -> bool:
        """Whether it is about this view and model."""
        mine, other = ((x.data is image.data, x.axes, x.index, x.channels) for x in (self.image, image))
        return model is self.model and mine == other

    def question(self) -> Any:
        """The engine's side of it."""
        if self._question is None:
            from seglens.session_live import LiveQuestion

            self._question = LiveQuestion(self.image, self.model)
        return self._question


def warm(run: Run, emit: Emit, *, live: Live, method: Method) -> None:
    """Send the image through the network, so that the first question to the method does not wait for it.

    Raises:
        SegLensError: what the engine says.
    """
    live.question().warm(run, method)


def ask_live(
    run: Run, emit: Emit, *, live: Live, method: Method, target: Target, annotation: Any = None, bank: str = ""
) -> tuple[Explanation, list[Limits]]:
    """Ask about another target of the same image; the answer comes with its display limits.

    Raises:
        SegLensError: what the engine says.
    """
    answer = live.question().explain(method, target, run=run, annotation=annotation, bank=bank or None)
    return answer, limits_of(answer)


def explain_layers(
    run: Run, emit: Emit, *, names: tuple[str, ...], at: Literal["depths", "all"], method: Method, image: Image,
    model: Any, target: Target, annotation: Any = None,
) -> Record:  # fmt: skip
    """Ask one question at one layer after another; each map is handed over with its display limits.

    Returns:
        The record of all of them.

    Raises:
        SegLensError: what the engine says.
    """
    from seglens.session_layers import explain_layers as ask
    from seglens.session_layers import parameter_of, strip_record

    first: Record | None = None
    for answer in ask(method, image, model, target, at=names, run=run, annotation=annotation):
        told = answer.record
        if told is not None:
            first = first or told
            emit(Depth(str(told.parameters[parameter_of(method)]), answer.map, Limits.of(answer.map)))
    if first is None:
        raise SegLensError(f"{method.title} answered at no layer.", fix="Choose another method.")
    return strip_record(first, method, at)


def estimate(
    run: Run, emit: Emit, *, method: Method, image: Image, model: Any, target: Target, annotation: Any = None
) -> str:
    """What a question will take, in words; costs a few forward passes.

    Raises:
        SegLensError: what the engine says.
    """
    from seglens.session import estimate as ask

    return ask(method, image, model, target, run=run, annotation=annotation).text


def _hand_over(answer: Explanation, emit: Emit) -> None:
    first = next((layer for layer in answer.layers if layer.kind in ("heat", "signed")), None)
    if first is not None:
        # the method may go on writing into its array
        copy = replace(first, data=np.array(first.data))
        emit(Partial(replace(answer, layers=(copy,)), Limits.of(copy)))


def _part(tell: Any, number: int, count: int) -> Any:
    return lambda done, total, text: tell(number * total + done, count * total, text)


def _zoo() -> tuple[ZooEntry, ...]:
    from seglens.models.zoo import zoo

    return tuple(_entries(zoo()))


def _entries(shelf: dict[str, Path]) -> Iterator[ZooEntry]:
    for name, folder in shelf.items():
        yield ZooEntry(name, str(folder), spec_in(folder))


def spec_in(folder: Path) -> ModelSpec:
    """What the model of a folder expects and answers; its file also says how to build the network."""
    data = read_spec(folder / "model.json")
    return ModelSpec.from_dict({k: v for k, v in data.items() if k in ModelSpec.__dataclass_fields__})


def _methods() -> tuple[tuple[type[Method], ...], tuple[str, ...]]:
    from seglens.core.catalogue import METHODS

    found, broken = [], []
    for name in METHODS:
        # one broken package of a third party must not take the others away
        try:
            found.append(METHODS[name])
        except (SegLensError, ImportError, AttributeError, TypeError) as error:
            broken.append(f"{name}: {error}")
    return tuple(found), tuple(broken)
