"""SegLens: see why a segmentation model drew that line."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Names load their module when they are first used, so that `import seglens` stays light (no torch).
_WHERE = {
    "METHODS": "seglens.core.catalogue",
    "Border": "seglens.core.target",
    "Box": "seglens.core.target",
    "Explanation": "seglens.core.explanation",
    "Image": "seglens.core.image",
    "Object": "seglens.core.target",
    "Painted": "seglens.core.target",
    "Point": "seglens.core.target",
    "Predicted": "seglens.core.target",
    "Run": "seglens.core.run",
    "SegLensError": "seglens.core.errors",
    "SegmentationModel": "seglens.models.segmentation",
    "Target": "seglens.core.target",
    "as_cli": "seglens.core.rerun",
    "as_python": "seglens.core.rerun",
    "compare_fills": "seglens.session",
    "each_object": "seglens.session",
    "estimate": "seglens.session",
    "explain": "seglens.session",
    "explain_each": "seglens.session",
    "explain_layers": "seglens.session_layers",
    "explain_many": "seglens.session",
    "load_model": "seglens.models.loaders",
    "open_image": "seglens.core.files",
    "read_labels": "seglens.core.files",
    "read_mask": "seglens.core.files",
    "save_explanation": "seglens.core.saving",
    "segment": "seglens.session",
}

__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module 'seglens' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
