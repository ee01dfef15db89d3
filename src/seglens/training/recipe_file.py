"""A recipe as a JSON file: any own classes and images, without a line of Python.

::

    {"spec": {"name": "crystals", "axes": "YX", "channels": ["grey"], "classes": ["background", "crystal"],
              "normalisation": {"kind": "percentile"}},
     "augmentation": "light", "border": 0, "epochs": 30}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

from seglens.core.errors import BadParameter, UnknownName
from seglens.models.nets import NETWORKS
from seglens.models.spec import ModelSpec
from seglens.training.recipe import Measure, Phase, Recipe, Schedule, Truth

HELP = "docs/training.md has an example."
CHOICES = {"truth": get_args(Truth), "measure": get_args(Measure), "schedule": get_args(Schedule)}
# A file may choose among the tasks that come with SegLens: naming any other module would run its code.
HOME = "seglens.training."


def read_recipe(file: Path) -> Recipe:
    """The recipe of a JSON file.

    Raises:
        BadParameter: it cannot be read, or an entry is unknown, missing or of the wrong kind.
        ModelMismatch: the ``spec`` in it cannot be used.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadParameter(
            f"The recipe {file.name} cannot be read: {error}.", fix=f"Write it as JSON; {HELP}"
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("spec"), dict):
        raise BadParameter(f"The recipe {file.name} says nothing of the model.", fix=f'Give it a "spec"; {HELP}')
    values = {**data, "spec": ModelSpec.from_dict(data["spec"])}
    values.setdefault("augmentation", "light")
    if "arguments" not in values and values.get("network", "unet") in NETWORKS:
        spec = values["spec"]
        values["arguments"] = {
            "in_channels": len(spec.channels),
            "out_channels": len(spec.classes),
            "dims": spec.ndim,
        }
    values["phases"] = tuple(_made(Phase, phase, "phase") for phase in data.get("phases", ()))
    if not str(values.get("task", HOME)).startswith(HOME):
        raise BadParameter(
            f"The recipe names the task {values['task']!r}, which is no part of SegLens.",
            fix="Call seglens.training.train from Python with a Recipe of your own for that.",
        )
    made: Recipe = _made(Recipe, values, "recipe")
    return made


def _made(kind: Any, data: Any, what: str) -> Any:
    if not isinstance(data, Mapping):
        raise BadParameter(f"A {what} is given as {data!r}.", fix=f"Write an object with names and values; {HELP}")
    known = {f.name: f for f in fields(kind)}
    for name in data:
        if name not in known:
            raise UnknownName.among("entry", name, known, listing=f"A {what} has: {', '.join(known)}.")
    missing = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in data]
    if missing:
        raise BadParameter(f"The {what} lacks {', '.join(missing)}.", fix=f"Add it; {HELP}")
    return kind(**{name: _value(name, value, known[name].default) for name, value in data.items()})


def _value(name: str, value: Any, default: Any) -> Any:
    """A value of the kind of its default; what has none is checked where it is used."""
    if name in CHOICES and value not in CHOICES[name]:
        raise BadParameter(f"{name} is given as {value!r}.", fix=f"Use {' or '.join(CHOICES[name])}.")
    if isinstance(value, list):
        value = tuple(value)
    wanted = {bool: bool, int: int, float: int | float, str: str, tuple: tuple}.get(type(default))
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
        raise BadParameter(f"{name} is given as {value!r}.", fix=f"Write it like {default!r}; {HELP}")
    return value
