"""The sample menu: one function per sample, since napari calls each without arguments."""

from __future__ import annotations

from typing import Any

LayerData = list[tuple[Any, dict[str, Any], str]]


def nuclei_2d() -> LayerData:
    """Drawn fluorescent nuclei."""
    return _sample("nuclei-2d")


def tissue_rgb() -> LayerData:
    """Drawn stained tissue."""
    return _sample("tissue-rgb")


def nuclei_zstack() -> LayerData:
    """A drawn Z stack."""
    return _sample("nuclei-zstack")


def time_lapse() -> LayerData:
    """A drawn time-lapse."""
    return _sample("time-lapse")


def shortcut() -> LayerData:
    """The picture whose model looks at the wrong thing."""
    return _sample("shortcut")


def immunohistochemistry() -> LayerData:
    """A real stained section."""
    return _sample("immunohistochemistry")


def retina() -> LayerData:
    """A real retina."""
    return _sample("retina")


def cell() -> LayerData:
    """A real cell."""
    return _sample("cell")


def _sample(name: str) -> LayerData:
    from seglens.sample_data import sample_layers

    return [(data, settings, str(kind)) for data, settings, kind in sample_layers(name)]
