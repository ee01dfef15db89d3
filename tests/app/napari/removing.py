"""A person hides the frame of a row; it goes, and another comes. Run in a process of its own: drivers crashed here."""

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from seglens.app.napari import going


def drawn() -> None:
    """Let the window draw."""
    for _ in range(6):
        QApplication.processEvents()


def main() -> None:
    """Frame, hide, leave, frame."""
    viewer = napari.Viewer(show=True)
    image = viewer.add_image(np.zeros((64, 64, 3), np.uint8), rgb=True)
    corners = (np.array([10.0, 10.0]), np.array([20.0, 20.0]))
    drawn()
    for _ in range(4):
        going.show(viewer, image, corners, "YX")
        drawn()
        viewer.layers[-1].visible = False
        drawn()
        going.leave(viewer)
        drawn()
        assert list(viewer.layers) == [image]
    viewer.close()


if __name__ == "__main__":
    main()
