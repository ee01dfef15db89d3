"""Maps side by side in napari's grid, each over its own copy of the image (the same pixels, no memory)."""

from __future__ import annotations

from typing import Any

from napari.layers import Image as ImageLayer
from napari.layers import Layer

from seglens.app.napari import results
from seglens.app.napari.inserting import take_out
from seglens.app.napari.viewer_session import MARK, ViewerSession


class Grid:
    """Enters and leaves the grid, and puts everything back as it was.

    Args:
        session: whose viewer.
    """

    def __init__(self, session: ViewerSession) -> None:
        """Not in the grid yet."""
        self._session = session
        self._visible: dict[Layer, bool] = {}
        self._order: list[Layer] = []
        self._copies: list[Layer] = []
        self._before: tuple[bool, int] = (False, 1)
        self.on = False

    def enter(self, maps: list[Layer]) -> None:
        """Show maps side by side."""
        viewer, source = self._session.viewer, self._session.image_layer
        if viewer is None or source is None or self.on:
            return
        self._order = list(viewer.layers)
        self._visible = {layer: layer.visible for layer in viewer.layers}
        grid = viewer.canvas.grid
        self._before = (grid.enabled, grid.stride)
        self.on = True
        # a negative stride packs from the end of the list, so the pairs at its end stay together
        for layer in reversed(maps):
            copy = _copy(source, layer.name)
            self._copies.append(copy)
            results.add(viewer, copy)
            viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))
        for layer in viewer.layers:
            layer.visible = layer in maps or layer in self._copies
        grid.stride, grid.enabled = -2, True
        viewer.fit_to_view()

    def leave(self) -> None:
        """Back to one picture."""
        viewer = self._session.viewer
        if viewer is None or not self.on:
            return
        self.on = False
        grid = viewer.canvas.grid
        grid.enabled, grid.stride = self._before
        for copy in self._copies:
            if copy in viewer.layers:
                take_out(viewer, copy)
        self._copies = []
        known = [layer for layer in self._order if layer in viewer.layers]
        for position, layer in enumerate(known):
            if viewer.layers.index(layer) != position:
                viewer.layers.move(viewer.layers.index(layer), position)
        for layer, visible in self._visible.items():
            layer.visible = visible
        self._visible, self._order = {}, []
        viewer.fit_to_view()


def _copy(source: Layer, name: str) -> ImageLayer:
    more: dict[str, Any] = {} if source.rgb else {
        "colormap": source.colormap, "contrast_limits": source.contrast_limits, "gamma": source.gamma
    }  # fmt: skip
    return ImageLayer(
        source.data,
        rgb=source.rgb,
        multiscale=source.multiscale,
        name=f"{source.name} · {name}",
        metadata={MARK: {"role": "copy"}},
        **more,
        **results.placement(source, (0,) * source.ndim),
    )
