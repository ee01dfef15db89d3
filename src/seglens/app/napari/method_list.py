"""All methods, by family: find one by typing, see why one cannot run here."""

# mypy: allow-subclassing-any
from __future__ import annotations

import re
from collections.abc import Iterable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QTreeWidget, QTreeWidgetItem

from seglens.app.napari import words
from seglens.core.method import Method
from seglens.models.spec import ModelSpec

LEAST, MOST = 5, 10  # rows
FIRST = ("seg-grad-cam", "vanilla-gradient")  # to begin with: quick, and about any class
_NAME = Qt.ItemDataRole.UserRole
_STYLE = (
    "QTreeWidget#methods { background: rgba(128, 128, 128, 28); border-radius: 4px; }"
    "QTreeWidget#methods::item { padding: 1px 0; }"
)


class MethodList(QTreeWidget):
    """Families to open and close, methods in them; while somebody searches, only what matches, the best first."""

    chosen = Signal(str)

    def __init__(self) -> None:
        """Empty at first."""
        super().__init__()
        self.setObjectName("methods")
        self.setHeaderHidden(True)
        self.setStyleSheet(_STYLE)
        self.setIndentation(12)
        self.setExpandsOnDoubleClick(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._opened: set[str] = set()
        self._searching = False
        self.currentItemChanged.connect(self._changed)
        self.itemClicked.connect(self._clicked)
        self.itemExpanded.connect(self._turned)
        self.itemCollapsed.connect(self._turned)

    @property
    def shown(self) -> list[str]:
        """The names of the methods that are listed, top to bottom, in closed families too."""
        return [str(item.data(0, _NAME)) for item in self._methods()]

    def fill(
        self, kinds: Iterable[type[Method]], wanted: str, current: str, spec: ModelSpec | None, loaded: object
    ) -> None:
        """List the methods that match; those that cannot run on this model are grey.

        Args:
            kinds: all there are.
            wanted: what was typed; empty for all.
            current: the name of the chosen one.
            spec, loaded: the chosen model.
        """
        blocked = self.blockSignals(True)
        self.clear()
        self._searching = bool(wanted.strip())
        ranked = [(place, kind) for kind in kinds if (place := rank(kind, wanted)) is not None]
        families: dict[str, list[type[Method]]] = {}
        for _, kind in sorted(ranked, key=lambda pair: (pair[0] if self._searching else 0, _key(pair[1]))):
            families.setdefault(kind.family, []).append(kind)
        for family, members in families.items():
            group = QTreeWidgetItem([f"{family} ({len(members)})"])
            group.setFlags(Qt.ItemFlag.ItemIsEnabled)
            group.setToolTip(0, words.FAMILIES.get(family, ""))
            group.setData(0, _NAME, family)
            font = group.font(0)
            font.setBold(True)
            group.setFont(0, font)
            group.addChildren([_item(kind, spec, loaded) for kind in members])
            self.addTopLevelItem(group)
            group.setExpanded(self._searching or family in self._opened or current in [k.name for k in members])
        self.blockSignals(blocked)
        self.select(current)
        self._fit()

    def select(self, name: str) -> None:
        """Mark a method as the chosen one, and open its family."""
        blocked = self.blockSignals(True)
        found = next((item for item in self._methods() if item.data(0, _NAME) == name), None)
        self.setCurrentItem(found)
        if found is not None:
            family = found.parent()
            if family is not None:
                family.setExpanded(True)
            self.scrollToItem(found)
        self.blockSignals(blocked)
        self._fit()

    def take_first(self) -> None:
        """Choose the first that matches and can run."""
        first = next((item for item in self._methods() if item.flags() & Qt.ItemFlag.ItemIsEnabled), None)
        if first is not None:
            self.setCurrentItem(first)

    def _methods(self) -> list[QTreeWidgetItem]:
        groups = [self.topLevelItem(i) for i in range(self.topLevelItemCount())]
        children = [group.child(i) for group in groups if group is not None for i in range(group.childCount())]
        return [child for child in children if child is not None]

    def _changed(self, item: QTreeWidgetItem | None, _before: object = None) -> None:
        if item is not None and item.parent() is not None:
            self.chosen.emit(str(item.data(0, _NAME)))

    def _clicked(self, item: QTreeWidgetItem, _column: int) -> None:
        if item.parent() is None:
            item.setExpanded(not item.isExpanded())

    def _turned(self, item: QTreeWidgetItem) -> None:
        # what a search opens is closed again after it
        if not self._searching:
            (self._opened.add if item.isExpanded() else self._opened.discard)(str(item.data(0, _NAME)))
        self._fit()

    def _fit(self) -> None:
        groups = [item for i in range(self.topLevelItemCount()) if (item := self.topLevelItem(i)) is not None]
        rows = sum(1 + (group.childCount() if group.isExpanded() else 0) for group in groups)
        height = max(16, self.sizeHintForRow(0))
        self.setFixedHeight(min(MOST, max(LEAST, rows)) * height + 8)


def rank(kind: type[Method], wanted: str) -> int | None:
    """How well a method matches what was typed, 0 is best; ``None`` if it does not.

    A name that begins so comes before one that holds the words, that before a family, and that before a description.
    """
    text = _plain(wanted)
    names = [_plain(kind.title), _plain(kind.name)]
    if any(name.startswith(text) for name in names):
        return 0
    places = (" ".join(names), _plain(kind.family), _plain(about(kind)))
    told = ""
    for number, place in enumerate(places, 1):
        told += f" {place}"
        if all(word in told for word in text.split()):
            return number
    return None


def about(kind: type[Method]) -> str:
    """What a method does, in its first line, and how near it is to its paper."""
    # couteaux2019 is for the list of references
    cited = re.sub(r"^([a-z]+)(\d{4})", lambda key: f"{key[1].capitalize()} {key[2]}", kind.cite)
    note = words.FIDELITY.get(str(kind.fidelity), "").format(cited)
    return f"{kind.summary()} {note}".strip()


def unfit(kind: type[Method], spec: ModelSpec | None, loaded: object) -> str:
    """Why a method cannot run on the chosen model; empty if it can, or if there is no model yet."""
    why = None if spec is None else kind.unfit(spec, getattr(loaded, "layered", True))
    return f"{why[0][0].upper()}{why[0][1:]}." if why else ""


def hint(kind: type[Method]) -> str:
    """What a method does, what it costs, and what else it needs or takes."""
    needs = [words.NEEDS[str(need)] for need in sorted(kind.needs) if str(need) in words.NEEDS]
    takes = [words.TAKES[str(need)] for need in sorted(kind.takes) if str(need) in words.TAKES]
    return "\n".join([about(kind), words.FAMILIES.get(kind.family, kind.family), *needs, *takes])


def _item(kind: type[Method], spec: ModelSpec | None, loaded: object) -> QTreeWidgetItem:
    item = QTreeWidgetItem([kind.title])
    item.setData(0, _NAME, kind.name)
    why = unfit(kind, spec, loaded)
    item.setToolTip(0, f"{why}\n{about(kind)}" if why else hint(kind))
    if why:
        item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
    return item


def _plain(text: str) -> str:
    return text.lower().replace("-", " ").strip()


def _key(kind: type[Method]) -> tuple[int, str, str]:
    known = list(words.FAMILIES)
    place = known.index(kind.family) if kind.family in known else len(known)
    return place, kind.family, kind.title.lower()


def first(kinds: Iterable[type[Method]]) -> str:
    """The method to begin with."""
    names = [kind.name for kind in kinds]
    return next((name for name in (*FIRST, *names) if name in names), "")
