"""What the person set in Preferences (the manifest's ``configurations``), and where SegLens keeps files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seglens.core.places import home, write_whole

PLUGIN = "seglens"
DEFAULTS: dict[str, Any] = {
    "compute.device": "auto",
    "compute.tile": 0,
    "interface.suggest_model": True,
    "interface.signed_colours": "orange / blue",
    "interface.heat_colours": "viridis",
    "interface.opacity": 0.75,
}
MOST_RECENT = 8


def get(key: str) -> Any:
    """A preference such as ``compute.device``; its default where napari does not know the plugin."""
    # settings of plugins came with napari 0.9 and need the manifest to be installed
    from napari.settings import get_plugin_settings

    category, _, name = key.partition(".")
    try:
        return getattr(getattr(get_plugin_settings(PLUGIN), category), name)
    except (AttributeError, KeyError, ValueError):
        return DEFAULTS[key]


def user_folder(name: str = "") -> Path:
    """A folder that SegLens may write to; made if it is not there."""
    folder = home() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def recent_models() -> list[str]:
    """Model files that were opened lately and still exist, newest first."""
    file = user_folder() / "recent.json"
    try:
        paths = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [p for p in paths if isinstance(p, str) and Path(p).exists()] if isinstance(paths, list) else []


def remember_model(path: str) -> None:
    """Put a model file on top of the recent ones."""
    paths = [path, *(p for p in recent_models() if p != path)][:MOST_RECENT]
    write_whole(user_folder() / "recent.json", json.dumps(paths, indent=1))
