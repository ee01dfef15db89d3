"""How maps are shown: colours, and what the sides of zero mean; for the plugin and for pictures of a run alike."""

from __future__ import annotations

# The first is what a person gets who chose none. On pink and purple tissue the middle of inferno and magma is lost;
# viridis is as even, and its greens stand out there and on black. Turbo stands out more, but is not even.
HEAT = ("viridis", "inferno", "magma", "turbo", "gray")

# Far below zero, below, above, far above; they differ in lightness too, so that colour-blind people can read them.
# Orange and blue are seen on pink and purple tissue and on black; magenta, as in the second, is lost on tissue.
SIGNED = {
    "orange / blue": ("#08306b", "#45b0ff", "#ffa040", "#a63603"),
    "green / magenta": ("#8e0152", "#f06fc0", "#8fdc5a", "#276419"),
    "red / blue": ("#053061", "#4aa3ff", "#ff6b5a", "#8b0a1a"),
}
ABOVE, BELOW = next(iter(SIGNED)).split(" / ")

_EVIDENCE = ("speaks for it", "against it")
# by the unit of a signed map, or by its name where units tell too little
_SIDES = {
    "features along the concept": ("lies on the concept's side", "on the other"),
    "likeness": ("is like its class", "like another"),
    "cosine": ("is like the example", "unlike it"),
    "witness": ("is too rare among the prototypes", "too frequent"),
    "activation": ("is above zero", "below"),
    "normalised input": ("was raised", "lowered"),
    "first − second": ("counts more for the first model", "more for the second"),
}


def sides(unit: str, name: str = "") -> tuple[str, str]:
    """What a signed map says above and below zero: evidence, unless its unit or name tells something else."""
    return _SIDES.get(unit) or _SIDES.get(name) or _EVIDENCE


def ends(name: str) -> list[tuple[float, float, float]]:
    """Four colours of a signed map, red, green and blue from 0 to 1 each: most below zero, below, above, most above.

    Unknown names give the first.
    """
    far_low, low, high, far_high = (_rgb(c) for c in SIGNED.get(name, SIGNED[next(iter(SIGNED))]))
    return [_mix(low, far_low), low, high, _mix(high, far_high)]


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _mix(a: tuple[float, ...], b: tuple[float, ...], part: float = 0.35) -> tuple[float, float, float]:
    red, green, blue = (x + (y - x) * part for x, y in zip(a, b, strict=True))
    return red, green, blue
