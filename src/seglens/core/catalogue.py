"""What exists, found by looking: files in family folders, and entry points of third parties.

Listing names reads folders only; a method's module (and with it torch) is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Generic, TypeVar

from seglens.core.configured import Configured
from seglens.core.errors import ModelMismatch, UnknownName
from seglens.core.method import Method

T = TypeVar("T", bound=Configured)


class Catalogue(Mapping[str, type[T]], Generic[T]):
    """Names to classes, for one kind of thing (methods, later metrics).

    Args:
        base: the class that every entry derives from.
        package: package whose sub-folders are families.
        group: entry-point group of third parties.
        kind: the word used in messages.
    """

    def __init__(self, base: type[T], *, package: str, group: str, kind: str) -> None:
        """Remember where to look; nothing is read yet."""
        self._base, self._package, self._group, self._kind = base, package, group, kind
        self._found: dict[str, str] | None = None

    def __iter__(self) -> Iterator[str]:
        """Names in order of family and name."""
        return iter(self._names())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        """Whether the name is known, without importing anything."""
        return name in self._names()

    def __getitem__(self, name: str) -> type[T]:
        """The class of a name; its module is imported now.

        Raises:
            UnknownName: no such name; the fix names the nearest.
        """
        names = self._names()
        if name not in names:
            listing = f"`seglens {self._kind}s` lists all {len(names)}."
            raise UnknownName.among(self._kind, name, names, listing=listing)
        return self._load(name, names[name])

    def refresh(self) -> None:
        """Look again at the next question (a package was installed)."""
        self._found = None

    def family_of(self, name: str) -> str:
        """The family of a name, without an import where the folder tells it."""
        where = self._names()[name]
        return self[name].family if ":" in where else where.split(".")[-2]

    def _names(self) -> dict[str, str]:
        if self._found is None:
            found = dict(self._scan())
            for entry in metadata.entry_points(group=self._group):
                found.setdefault(entry.name, entry.value)
            self._found = found
        return self._found

    def _scan(self) -> Iterator[tuple[str, str]]:
        root = files(self._package)
        for folder in sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: f.name):
            for file in sorted(_modules(folder)):
                yield file.replace("_", "-"), f"{self._package}.{folder.name}.{file}"

    def _load(self, name: str, where: str) -> type[T]:
        module_name, _, attribute = where.partition(":")
        module = importlib.import_module(module_name)
        if attribute:
            cls = getattr(module, attribute, None)
        else:
            cls = next((c for c in vars(module).values() if _defined_here(c, self._base, module_name)), None)
        if not (inspect.isclass(cls) and issubclass(cls, self._base)) or cls.name != name:
            raise ModelMismatch(
                f"The {self._kind} {name!r} is announced by {where}, which has no {self._base.__name__} of that name.",
                fix=f"Update or uninstall the package that brings {module_name.split('.')[0]}.",
            )
        return cls


def _modules(folder: Traversable) -> list[str]:
    return [f.name[:-3] for f in folder.iterdir() if f.name.endswith(".py") and not f.name.startswith("_")]


def _defined_here(thing: object, base: type, module: str) -> bool:
    return inspect.isclass(thing) and issubclass(thing, base) and thing.__module__ == module


METHODS: Catalogue[Method] = Catalogue(Method, package="seglens.methods", group="seglens.methods", kind="method")
