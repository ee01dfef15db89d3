"""A form from declared parameters; nothing about a parameter is written twice."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, log10
from typing import Any

from magicgui.widgets import Widget, create_widget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QSizePolicy, QWidget

from seglens.app.napari import look
from seglens.core.param import Parameter

WIDEST = 1_000_000


class Form(QWidget):
    """One row per parameter.

    Args:
        parameters: as a method declares them.
        values: what to show; missing ones show their default.
        choices: the entries of parameters whose choices come from the model (``layers``, ``classes``).
        empty: for the same, what leaving it open comes to on this model.
    """

    changed = Signal()

    def __init__(
        self,
        parameters: Sequence[Parameter],
        values: Mapping[str, Any],
        choices: Mapping[str, Sequence[str]],
        empty: Mapping[str, str] | None = None,
    ) -> None:
        """Build the rows."""
        super().__init__()
        layout = self.rows = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(look.GAP)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.fields: dict[str, Field] = {}
        for parameter in parameters:
            field = Field(parameter, values.get(parameter.name, parameter.default), choices, empty or {})
            field.changed.connect(self.changed)
            label = QLabel(parameter.label)
            label.setToolTip(parameter.param.help)
            layout.addRow(label, field)
            self.fields[parameter.name] = field
        look.calm(self)

    def values(self) -> dict[str, Any]:
        """What is set; ``None`` where the choice is left to the method."""
        return {name: field.value() for name, field in self.fields.items()}

    def changed_values(self) -> dict[str, Any]:
        """Only what differs from the defaults."""
        return {n: f.value() for n, f in self.fields.items() if f.value() != f.parameter.default}

    def reset(self) -> None:
        """Back to the defaults."""
        for field in self.fields.values():
            field.set(field.parameter.default)


class Field(QWidget):
    """The editor of one parameter; an optional number has a box to tick for leaving it open."""

    changed = Signal()

    def __init__(
        self, parameter: Parameter, value: Any, choices: Mapping[str, Sequence[str]], empty: Mapping[str, str]
    ) -> None:
        """Build the editor."""
        super().__init__()
        self.parameter = parameter
        self._editor = editor(parameter, choices, empty)
        self._open: QCheckBox | None = None
        layout = look.column(self, gap=2)
        native = self._editor.native
        native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        native.setMinimumWidth(60)
        if parameter.optional and parameter.param.source is None and not parameter.choices:
            # a check box cannot wrap, and the dock is narrow
            self._open = QCheckBox(parameter.param.empty)
            self._open.setToolTip(f"{parameter.param.help} Left open: {parameter.param.empty}.")
            self._open.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            self._open.setMinimumWidth(60)
            self._open.toggled.connect(self._toggled)
            layout.addWidget(self._open)
        layout.addWidget(native)
        self.set(value)
        self._editor.changed.connect(self._edited)

    def value(self) -> Any:
        """The value; ``None`` where it is left open."""
        if self._open is not None and self._open.isChecked():
            return None
        return self._editor.value

    def set(self, value: Any) -> None:
        """Show a value."""
        if self._open is not None:
            self._open.setChecked(value is None)
            self._editor.native.setVisible(value is not None)
        choices = getattr(self._editor, "choices", None)
        if value is None and self._open is not None:
            return
        if choices is None or value in choices:
            self._editor.value = value

    def _toggled(self, checked: bool) -> None:
        self._editor.native.setVisible(not checked)
        self.changed.emit()

    def _edited(self, _value: Any) -> None:
        self.changed.emit()


def editor(
    parameter: Parameter, choices: Mapping[str, Sequence[str]], empty: Mapping[str, str] | None = None
) -> Widget:
    """The magicgui widget of a parameter; limits go in as options, since magicgui drops annotated ones."""
    p = parameter.param
    options: dict[str, Any] = {"tooltip": f"{p.help} Left open: {p.empty}." if parameter.optional else p.help}
    if p.source is not None or parameter.choices:
        entries: list[Any] = [(str(c), c) for c in (choices.get(p.source, ()) if p.source else parameter.choices)]
        if parameter.optional:
            entries.insert(0, ((empty or {}).get(p.source or "") or p.empty, None))
        options["choices"] = entries
        widget = create_widget(widget_type="ComboBox", options=options)
        box: Any = widget.native
        box.setSizeAdjustPolicy(box.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)
        return widget
    if parameter.type in (int, float):
        options |= limits(parameter)
        value = parameter.default if parameter.default is not None else max(options["min"], p.quick or options["min"])
        widget = create_widget(value=parameter.type(value), annotation=parameter.type, options=options)
        if p.unit and hasattr(widget.native, "setSuffix"):
            widget.native.setSuffix(f" {p.unit}")
        small = min((abs(v) for v in (parameter.default, p.quick) if v), default=1)
        if parameter.type is float and small < 0.1:
            # two decimals, as Qt has them, would round a small value to nothing
            widget.native.setDecimals(max(widget.native.decimals(), 1 - floor(log10(small))))
            widget.value = value
        return widget
    return create_widget(
        value=parameter.default if parameter.default is not None else parameter.type(),
        annotation=parameter.type,
        options=options | ({"text": ""} if parameter.type is bool else {}),
    )


def limits(parameter: Parameter) -> dict[str, Any]:
    """Smallest, largest and step of a number; a strict limit is moved inside by one step."""
    p = parameter.param
    whole = parameter.type is int
    step = p.step or (1 if whole else _step(p.ge, p.le, parameter.default))
    nudge = 1 if whole else 1e-6
    low = p.ge if p.ge is not None else p.gt + nudge if p.gt is not None else -WIDEST
    high = p.le if p.le is not None else p.lt - nudge if p.lt is not None else WIDEST
    kind = parameter.type
    return {"min": kind(low), "max": kind(high), "step": kind(step)}


def _step(low: float | None, high: float | None, default: Any) -> float:
    if low is not None and high is not None:
        return (high - low) / 100
    return abs(default) / 10 if isinstance(default, float) and default else 0.1
