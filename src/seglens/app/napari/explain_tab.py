"""The Explain tab: what to explain, how, and what came out."""

# mypy: allow-subclassing-any
from __future__ import annotations

from qtpy.QtWidgets import QWidget

from seglens.app.napari import look
from seglens.app.napari.method_box import MethodBox
from seglens.app.napari.result_box import ResultBox
from seglens.app.napari.target_box import TargetBox
from seglens.app.napari.viewer_session import ViewerSession


class ExplainTab(QWidget):
    """Target, method, result.

    Args:
        session: what is chosen.
    """

    def __init__(self, session: ViewerSession) -> None:
        """Three sections, top to bottom."""
        super().__init__()
        self.target = TargetBox(session)
        self.method = MethodBox(session)
        self.result = ResultBox(session)
        layout = look.column(self, margin=look.MARGIN)
        for title, box in (("Explain", self.target), ("With", self.method), ("Maps", self.result)):
            layout.addWidget(look.heading(title))
            layout.addWidget(box)
        layout.addStretch(1)
        look.calm(self)
