"""The models that come with SegLens: a folder each, with ``model.json``, ``weights.safetensors`` and ``CARD.md``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from seglens.core.errors import UnknownName


def zoo() -> dict[str, Path]:
    """Name to folder of every shipped model, by name; imports no torch.

    A folder ``nuclei_fluorescence`` is called ``nuclei-fluorescence``.
    """
    shelf = Path(str(files(__name__)))
    folders = sorted(marker.parent for marker in shelf.glob("*/model.json"))
    return {folder.name.replace("_", "-"): folder for folder in folders}


def card(name: str) -> str:
    """What a shipped model is for, on what it was trained and where it fails, as Markdown.

    Raises:
        UnknownName: no shipped model has this name.
    """
    shelf = zoo()
    if name not in shelf:
        raise UnknownName.among("model", name, shelf, listing="`seglens models` lists the models that come along.")
    path = shelf[name] / "CARD.md"
    return path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n\nThis model has no card yet.\n"
