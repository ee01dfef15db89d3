"""Feature banks: embeddings of pixels, patches and objects of many images. Names that need torch come when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seglens.engine.features.bank import FeatureBank, borrowed, is_bank
from seglens.engine.features.entry import BankInfo, Entry, Failure, ImageRow, Kind, Metric, Neighbours
from seglens.engine.features.groups import group_of

if TYPE_CHECKING:
    from seglens.engine.features.build import build_bank
    from seglens.engine.features.regions import check_bank, feature_layer, region_vector, region_vectors

_LATE = {
    "build_bank": "build",
    "check_bank": "regions",
    "feature_layer": "regions",
    "region_vector": "regions",
    "region_vectors": "regions",
}

__all__ = [
    "BankInfo",
    "Entry",
    "Failure",
    "FeatureBank",
    "ImageRow",
    "Kind",
    "Metric",
    "Neighbours",
    "borrowed",
    "build_bank",
    "check_bank",
    "feature_layer",
    "group_of",
    "is_bank",
    "region_vector",
    "region_vectors",
]


def __getattr__(name: str) -> Any:
    """Import what looks at models with its first use."""
    if name in _LATE:
        return getattr(importlib.import_module(f"seglens.engine.features.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
