"""A number with its noun."""

from __future__ import annotations


def plural(number: int, one: str, more: str = "") -> str:
    """``1 pixel``, ``2 pixels``; ``more`` is for a noun that takes no s."""
    return f"{number} {one if number == 1 else more or one + 's'}"
