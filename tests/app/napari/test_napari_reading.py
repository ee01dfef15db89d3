"""The raw value of a map stands on the canvas while the pointer is over it, though another layer is active."""

from types import SimpleNamespace

import numpy as np
from viewer_help import blobs, make_model

from seglens.app.napari import reading
from seglens.app.napari.viewer_session import is_ours


def move(d, at):
    """The pointer goes to a pixel of the image; what stands on the canvas then."""
    event = SimpleNamespace(position=d.session.image_layer.data_to_world(at))
    for callback in list(d.viewer.mouse_move_callbacks):
        callback(d.viewer, event)
    overlay = d.viewer.canvas.overlays.get(reading.OVERLAY)
    return overlay.text if overlay is not None and overlay.visible else ""


def test_the_raw_value_under_the_pointer_is_told(drive):
    d = drive()
    d.viewer.add_image(blobs(64, 80), scale=(2, 2), translate=(5, 6))
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    assert move(d, (30, 40)) == ""
    d.session.question.method = "vanilla-gradient"
    d.session.values["vanilla-gradient"] = {"show": "signed"}
    d.run()
    layer = next(x for x in d.viewer.layers if is_ours(x, "heat"))
    assert d.viewer.layers.selection.active is d.session.image_layer
    data = np.asarray(layer.data)
    top = np.unravel_index(data.argmax(), data.shape)
    for at in (top, (0, 79)):
        assert move(d, at) == f"{layer.name}: {data[at]:.4g} {layer.metadata['seglens']['unit']}".rstrip()
    # limits are for the eyes alone
    assert data.max() >= layer.contrast_limits[1]
    assert move(d, (200, 40)) == ""
    layer.visible = False
    assert move(d, top) == ""
    layer.visible = True
    assert move(d, top)
    layer.locked = False
    d.viewer.layers.remove(layer)
    assert not d.viewer.canvas.overlays[reading.OVERLAY].visible


def test_a_dock_that_is_closed_reads_no_more(drive):
    d = drive()
    before = len(d.viewer.mouse_move_callbacks)
    d.viewer.window.remove_dock_widget(d.dock)
    d.dock.jobs.stop_all()
    d.dock.deleteLater()
    d.wait(lambda: len(d.viewer.mouse_move_callbacks) == before - 1)
