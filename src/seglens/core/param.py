"""Parameters: declared once as annotated fields, read once here.

A declaration is a field with ``Annotated[type, Param(...)]``. The check, the command-line option, the form
in the viewer, the record and the cheap value of the tests all come from :func:`parameters`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from seglens.core.errors import BadParameter

Source = Literal["layers", "classes"]
Scalar = bool | int | float | str


@dataclass(frozen=True)
class Param:
    """What a person needs to know of one parameter.

    Args:
        help: one line, shown by ``--help`` and as tooltip.
        ge, gt, le, lt: limits.
        step: step of the spin box.
        unit: unit, shown behind the value (``px``, ``%``).
        quick: a cheap value for tests; ``None`` keeps the default.
        source: the choices come from the model: its ``layers`` or ``classes``.
        empty: what leaving an optional parameter empty means, in a word or two.
    """

    help: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    step: float | None = None
    unit: str = ""
    quick: Any = None
    source: Source | None = None
    empty: str = "automatic"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a class as read from its declaration."""

    name: str
    type: type
    default: Any
    optional: bool
    choices: tuple[Any, ...]
    param: Param

    @property
    def label(self) -> str:
        """The name as a person reads it."""
        return self.name.replace("_", " ").capitalize()

    @property
    def quick(self) -> Any:
        """The value that tests use."""
        return self.default if self.param.quick is None else self.param.quick

    @property
    def limits(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        low = _bound(self.param.ge, self.param.gt, "from", "above")
        high = _bound(self.param.le, self.param.lt, "to", "below")
        kind = {int: "a whole number", float: "a number", bool: "yes or no", str: "a name"}[self.type]
        return " ".join(part for part in (kind, low, high) if part)

    def check(self, owner: str, value: Any) -> Any:
        """The value in its declared type.

        Raises:
            BadParameter: wrong type or outside the limits; the fix says what is allowed.
        """
        if value is None and self.optional:
            return None
        value = self._convert(owner, value)
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in self.choices], n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise self._error(owner, value, hint)
        if self.type in (int, float) and not self._inside(value):
            raise self._error(owner, value)
        return value

    def parse(self, owner: str, text: str) -> Any:
        """The value of a text, as typed on a command line; empty text leaves an optional one empty."""
        if self.optional and text.strip().lower() in ("", "none", "auto"):
            return None
        if self.type is bool:
            words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            return self.check(owner, words.get(text.strip().lower(), text))
        return self.check(owner, text)

    def invalid(self) -> Any:
        """A value that :meth:`check` must refuse, for tests; ``None`` if anything goes."""
        if self.choices:
            return "no-such-choice"
        if self.type in (int, float):
            far = next((n for n in (10**12, -(10**12)) if not self._inside(n)), None)
            return "many" if far is None else self.type(far)
        return 12345.5 if self.type is bool else None

    def _convert(self, owner: str, value: Any) -> Any:
        if self.choices:
            texts = {str(choice): choice for choice in self.choices}
            return texts.get(str(value), value)
        if self.type is bool:
            if isinstance(value, bool):
                return value
            raise self._error(owner, value)
        if self.type is str:
            return str(value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._error(owner, value) from None
        if isinstance(value, bool) or not math.isfinite(number) or (self.type is int and number != int(number)):
            raise self._error(owner, value)
        return self.type(number)

    def _inside(self, value: float) -> bool:
        p = self.param
        return (
            (p.ge is None or value >= p.ge)
            and (p.gt is None or value > p.gt)
            and (p.le is None or value <= p.le)
            and (p.lt is None or value < p.lt)
        )

    def _error(self, owner: str, value: Any, hint: str = "") -> BadParameter:
        return BadParameter(
            f"{owner}: {self.name.replace('_', '-')}={value!r} is not allowed.", fix=f"{hint}Use {self.limits}."
        )


_known: dict[type, tuple[Parameter, ...]] = {}


def parameters(cls: type) -> tuple[Parameter, ...]:
    """Every declared parameter of a dataclass, in order.

    Raises:
        TypeError: a field has no ``Param`` or a type that no option can hold (a fault of the author).
    """
    if cls not in _known:
        hints = get_type_hints(cls, include_extras=True)
        _known[cls] = tuple(_read(cls, f, hints[f.name]) for f in dataclasses.fields(cls) if f.init)
    return _known[cls]


def _read(cls: type, field: dataclasses.Field[Any], hint: Any) -> Parameter:
    param = None
    optional = False
    while get_origin(hint) in (Annotated, Union, types.UnionType):
        args = get_args(hint)
        if get_origin(hint) is Annotated:
            param = next((a for a in args[1:] if isinstance(a, Param)), param)
            hint = args[0]
        else:
            optional = type(None) in args
            hint = next(a for a in args if a is not type(None))
    if param is None:
        raise TypeError(f"{cls.__name__}.{field.name} needs Annotated[type, Param(...)]")
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = type(choices[0]) if choices else hint
    if kind not in (bool, int, float, str):
        raise TypeError(f"{cls.__name__}.{field.name}: parameters are bool, int, float, str or Literal, not {hint}")
    default = None if field.default is dataclasses.MISSING else field.default
    return Parameter(field.name, kind, default, optional, tuple(choices), param)


def _bound(inclusive: float | None, exclusive: float | None, word: str, strict: str) -> str:
    if inclusive is not None:
        return f"{word} {inclusive:g}"
    return f"{strict} {exclusive:g}" if exclusive is not None else ""


# The shared words: one meaning, one help text, wherever a method uses them.
Window = Annotated[
    int | None,
    Param(
        "Side of the window that is covered at a time.", ge=1, le=4096, unit="px", quick=4, empty="1/16 of the image"
    ),
]
Stride = Annotated[
    int | None,
    Param("Distance between neighbouring windows.", ge=1, le=4096, unit="px", quick=4, empty="half the window"),
]
FillName = Literal[
    "mean", "rest-mean", "unit-mean", "blur", "inpaint", "noise", "permutation", "black", "grey", "white", "zero"
]
Fill = Annotated[
    FillName,
    Param(
        "What covered pixels are replaced with: the mean of the image, of all but the region, or of themselves; the "
        "image blurred, continued from around, as noise or with its pixels shuffled; one grey level; or 0 in the "
        "network's own input."
    ),
]
UnitName = Literal["superpixels", "grid", "objects", "labels", "channels", "slices", "frames"]
Units = Annotated[
    UnitName,
    Param(
        "What is taken away as one: superpixels, cells of a grid, predicted objects, regions of your own labels layer, "
        "channels, slices of a volume, or frames of a video."
    ),
]
Pieces = Annotated[int, Param("About how many superpixels or cells of the grid.", ge=2, le=4096, quick=100)]
Samples = Annotated[int, Param("How many perturbed copies to score.", ge=8, le=1_000_000, quick=300)]
Layer = Annotated[
    str | None, Param("Layer of the network to look at.", source="layers", empty="chosen by looking at the network")
]
Normalise = Annotated[bool, Param("Divide by the largest value; hides how little a target may need the layer.")]
Sign = Annotated[
    Literal["signed", "absolute", "positive", "negative"], Param("Which evidence to show: for, against, or both.")
]
