"""The configuration of a MONAI bundle, read without running any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seglens.core.errors import ModelMismatch

NETS = "monai.networks.nets"
DEEPEST = 40
REMARKS = ("_desc_", "_disabled_")


class CodeNeededError(ValueError):
    """Going on would run code; the text says which, as the rest of "FILE …"."""


@dataclass(frozen=True)
class Config:
    """A configuration file of a bundle.

    Args:
        path: the file.
        data: what it holds, unevaluated.
    """

    path: Path
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read JSON or YAML.

        Raises:
            ModelMismatch: it is neither.
        """
        import yaml  # type: ignore[import-untyped]
        from monai.bundle import ConfigParser

        try:
            return cls(path, dict(ConfigParser.load_config_file(str(path))))
        except (OSError, ValueError, TypeError, ImportError, yaml.YAMLError) as error:
            raise ModelMismatch(
                f"configs/{path.name} cannot be read: {error}.", fix="Download the bundle again; the file is damaged."
            ) from error

    def network(self, key: str) -> tuple[str, dict[str, Any]]:
        """Class name in ``monai.networks.nets`` and its arguments.

        Raises:
            CodeNeededError: it is something else, or an argument is an expression.
        """
        raw = self._follow(self.data[key])
        if not isinstance(raw, Mapping) or "_target_" not in raw:
            raise CodeNeededError(f"makes its network by {raw!r}")
        target = str(raw["_target_"])
        module, _, name = target.rpartition(".")
        special = [k for k in raw if k.startswith("_") and k not in ("_target_", *REMARKS)]
        if (module and module != NETS and not module.startswith(f"{NETS}.")) or special:
            raise CodeNeededError(f"calls {target}{' with ' + special[0] if special else ''}")
        return name, {k: self.plain(v) for k, v in raw.items() if not k.startswith("_")}

    def plain(self, value: Any, depth: int = 0) -> Any:
        """A value with its references followed.

        Raises:
            CodeNeededError: there is an expression or a call in it.
        """
        if depth > DEEPEST:
            raise CodeNeededError("refers to itself")
        if isinstance(value, str):
            found = self._follow(value)
            return found if isinstance(found, str) else self.plain(found, depth + 1)
        if isinstance(value, Mapping):
            if "_target_" in value:
                raise CodeNeededError(f"calls {value['_target_']}")
            return {k: self.plain(v, depth + 1) for k, v in value.items()}
        return [self.plain(v, depth + 1) for v in value] if isinstance(value, list) else value

    def get(self, key: str) -> Any:
        """An entry by its id, ``preprocessing::transforms``; ``None`` if there is none."""
        found: Any = self.data
        for part in key.replace("#", "::").split("::"):
            if isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, Mapping) and part in found:
                found = found[part]
            else:
                return None
        return found

    def transforms(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """Name (without the ``d`` of dictionary transforms) and plain arguments of each step of a ``Compose``.

        Arguments that only code could tell are left out.
        """
        found = self.get(f"{key}::transforms")
        steps = [step for step in found if isinstance(step, Mapping)] if isinstance(found, list) else []
        return [(_short(step), self._plain_arguments(step)) for step in steps if not step.get("_disabled_")]

    def _plain_arguments(self, step: Mapping[str, Any]) -> dict[str, Any]:
        known = {}
        for name, value in step.items():
            try:
                known[name] = self.plain(value)
            except CodeNeededError:
                continue
        return known

    def _follow(self, value: Any) -> Any:
        for _ in range(DEEPEST):
            if not isinstance(value, str) or value[:1] not in ("@", "%", "$"):
                return value
            target = self.get(value[1:]) if value[0] != "$" else None
            if target is None:
                raise CodeNeededError(f"evaluates {value!r}")
            value = target
        raise CodeNeededError(f"refers to itself at {value!r}")


def _short(step: Mapping[str, Any]) -> str:
    name = str(step.get("_target_", "")).rpartition(".")[2]
    return name.removesuffix("Dict").removesuffix("d") if name.endswith(("d", "Dict")) else name
