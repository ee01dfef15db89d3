"""A number with its noun."""

from __future__ import annotations

from seglens.core.plural import plural


def test_one_takes_no_s():
    assert [plural(n, "pixel") for n in (0, 1, 2)] == ["0 pixels", "1 pixel", "2 pixels"]
    assert [plural(n, "entry", "entries") for n in (1, 3)] == ["1 entry", "3 entries"]
