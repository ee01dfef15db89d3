"""Values that are recipes: frozen dataclasses whose fields are declared parameters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, dataclass_transform

from seglens.core.errors import UnknownName
from seglens.core.param import Parameter, parameters


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Configured:
    """Base of methods and metrics: subclasses become frozen, keyword-only dataclasses by themselves.

    An instance is a value: the recipe, the cache key and the entry in the history. ``name`` comes from the
    file, ``family`` from its folder; a package of a third party states ``family`` itself.
    """

    name: ClassVar[str] = ""
    family: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the subclass a frozen dataclass and name it after its file."""
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        *folders, file = cls.__module__.split(".")
        if "name" not in cls.__dict__:
            cls.name = file.replace("_", "-")
        if "family" not in cls.__dict__ and folders[:2] == ["seglens", "methods"]:
            cls.family = folders[-1]

    def __post_init__(self) -> None:
        """Check every value against its declaration.

        Raises:
            BadParameter: outside the limits.
        """
        for parameter in self.parameters():
            value = parameter.check(self.name, getattr(self, parameter.name))
            object.__setattr__(self, parameter.name, value)

    @classmethod
    def parameters(cls) -> tuple[Parameter, ...]:
        """The declared parameters, in order."""
        return parameters(cls)

    @classmethod
    def quick(cls) -> Self:
        """An instance that is cheap to run, for tests."""
        return cls(**{p.name: p.quick for p in cls.parameters()})

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """An instance from names and values (texts are parsed), as a record or a command line gives them.

        Raises:
            UnknownName: no such parameter.
            BadParameter: outside the limits.
        """
        known = {p.name: p for p in cls.parameters()}
        made = {}
        for raw, value in values.items():
            key = raw.replace("-", "_")
            if key not in known:
                names = ", ".join(name.replace("_", "-") for name in known) or "no parameters"
                raise UnknownName.among("parameter", raw, known, listing=f"{cls.name} has {names}.")
            made[key] = known[key].parse(cls.name, value) if isinstance(value, str) else value
        return cls(**made)

    def values(self) -> dict[str, Any]:
        """Names and values of all parameters."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
