"""The results as Markdown, and into the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.profile_pass import table as profiles

START, END = "<!-- peers: start -->", "<!-- peers: end -->"
HEAD = (
    "question",
    "size",
    "passes",
    "SegLens",
    "straight loop",
    "Captum",
    "MONAI",
    "best peer ÷ SegLens",
    "largest difference",
    "memory",
    "of peers",
    "of one forward",
)
BUDGET = 1024  # MiB that ours may grow by
NAMES = {
    "basicunet": "MONAI BasicUNet, 2.0 million parameters, reach about 100 px, random weights",
    "basicunet-thin": "MONAI BasicUNet, half as wide, reach about 100 px, random weights",
    "unet": "U-Net of SegLens, features 16, 32, 64, reach about 20 px, random weights",
    "unet3d": "3-D U-Net of SegLens, features 8, 16, 32, random weights",
}


def markdown(results: dict[str, Any]) -> str:
    """Tables by network and family, and what their signs mean."""
    parts = [_machine(results["machine"])]
    for family, network in dict.fromkeys((row["family"], row["network"]) for row in results["rows"]):
        rows = [row for row in results["rows"] if (row["family"], row["network"]) == (family, network)]
        lines = [HEAD, ("---",) * len(HEAD), *(_row(row) for row in rows)]
        parts += [f"**{family.title()} methods: {NAMES[network]}**"]
        parts += ["\n".join("| " + " | ".join(line) + " |" for line in lines)]
    parts += [profiles(results["profiles"])] if results["profiles"] else []
    parts += [_notes(results)] if _notes(results) else []
    parts += [_accuracy(results["accuracy"])] if results["accuracy"].get("games") else []
    return "\n\n".join(parts) + "\n"


def write_docs(results: dict[str, Any], page: Path) -> None:
    """Replace what stands between the markers of a page; a page without markers gets them at its end."""
    text = page.read_text(encoding="utf-8")
    if START not in text:
        text = f"{text.rstrip()}\n\n{START}\n{END}\n"
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{START}\n{markdown(results)}{END}{after}", encoding="utf-8")


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cores']} cores ({machine['processor']}, {machine['system']}), torch threads: {machine['threads']}, "
        f"torch {machine['torch']}, Captum {machine['captum']}, MONAI {machine['monai']}, {machine['date']}. Costs are "
        "in ordinary forward passes of the same network on the same image (batch 1, default layout and allocator, the "
        "median of several around each measurement), then in seconds. Each contender ran in a process of its own; ours "
        "includes everything that a first question needs, in brackets the same question asked again (of occlusion, "
        "with another fill). *Passes*: what a straight loop sends through the network. `~` a part was measured and "
        "scaled. `=` the cost of another row of this size: these run the same passes, for a painted region as for the "
        "whole class, for fifty objects fifty times, and of a loop over gradients as many as there are passes. Of "
        "Captum's methods that average over copies the first figure is as they come, all copies at once, the second a "
        "few at a time. MONAI's occlusion raises on segmentation networks, and ran with a wrapper. The difference is "
        "of ours from the straight loop, and from the peer, as a share of the largest value; where copies are drawn at "
        "random, from our own engine without its short cuts. Captum's gradients of up to 256² are taken in double "
        "precision for it; *itself* is how far its own single precision is from that, as a ReLU whose input is zero up "
        "to rounding lets a gradient pass or not. Memory: growth of resident memory in MiB while it worked, of ours "
        "(and by how much that is more than the 1024 it is allowed by default), of each peer, and of one ordinary "
        "forward of this network and image, below which nobody can stay."
    )


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    told = row["contenders"]
    size = "×".join(map(str, row["shape"])) if len(row["shape"]) == 3 else f"{row['shape'][0]}²"
    ours = told.get("ours", {})
    mine = _cost(ours)
    if "again" in ours:
        mine += f" [{_number(ours['again']['forwards'])}]"
    if row["of_one_run"]:
        mine += f" = {_number(row['of_one_run'])} × the first row"
    captum = "; ".join(_named(name, t) for name, t in told.items() if name.startswith("captum"))
    times = f"{_number(row['times'])}×" if row["times"] else "-"
    loop, monai = _cost(told.get("loop", {})), _cost(told.get("monai OcclusionSensitivity", {}))
    found = _differences(told)
    memory = (_grown(ours), _peers_grown(told), _mib(ours.get("forward_mib")))
    return (row["title"], size, str(row["evaluations"]), mine, loop, captum or "-", monai, times, found, *memory)


def _grown(ours: dict[str, Any]) -> str:
    """Growth, and what of it is over the budget."""
    grown = ours.get("memory_mib")
    over = f" ({grown - BUDGET:.0f} over)" if grown and grown > BUDGET else ""
    return _mib(grown) + over


def _peers_grown(told: dict[str, Any]) -> str:
    """Growth of every peer, in the order of their costs."""
    return ", ".join(_mib(t.get("memory_mib")) for n, t in told.items() if n not in ("ours", "loop")) or "-"


def _mib(grown: float | None) -> str:
    return "-" if grown is None else f"{grown:.0f}"


def _named(name: str, told: dict[str, Any]) -> str:
    short = {"captum ShapleyValueSampling": "sampling ", "captum KernelShap": "Kernel SHAP "}.get(name, "")
    return short + _cost(told)


def _cost(told: dict[str, Any]) -> str:
    if "forwards" not in told:
        return "failed" if "failed" in told else "-"
    sign = "=" if "borrowed" in told else ""
    sign += "~" if told["scaled"] else ""
    return f"{sign}{_number(told['forwards']['wall'])} ({_number(told['wall'])} s)"


def _differences(told: dict[str, Any]) -> str:
    out = []
    for n, t in told.items():
        if "difference" in t:
            name = "loop" if n == "loop" else n.split()[0].title()
            own = f" (itself {t['rounding']:.0e})" if "rounding" in t else ""
            out.append(f"{name} {t['difference']['relative']:.0e}{own}")
    plain = told.get("ours", {}).get("plain_difference")
    return ", ".join([*out, f"own plain loop {plain['relative']:.0e}"] if plain else out) or "-"


def _notes(results: dict[str, Any]) -> str:
    """Why a contender has no figure."""
    reasons: dict[str, None] = {}
    for row in results["rows"]:
        for name, told in row["contenders"].items():
            reason = told.get("skipped") or told.get("failed")
            if reason:
                reasons[f"{row['title']}, {name}: {reason.rstrip('.')}"] = None
    return "Not measured:\n\n" + "\n".join(f"- {reason}." for reason in reasons) if reasons else ""


def _accuracy(accuracy: dict[str, Any]) -> str:
    """RMS errors of Shapley values by number of passes."""
    parts = [
        "**Accuracy of Shapley values.** Root mean square error over units and seeds, as a share of the root mean "
        "square of the true values, by the number of passes; more and more passes until Captum's Kernel SHAP with 500 "
        "samples is equalled. Where the true values have an error of their own, it is taken out in quadrature."
    ]
    for game in accuracy["games"]:
        errors = {name: {int(n): e for n, e in told["errors"].items()} for name, told in game["answers"].items()}
        passes = sorted({n for found in errors.values() for n in found})
        lines = [("passes", *map(str, passes), "enough"), ("---",) * (len(passes) + 2)]
        for name, found in errors.items():
            cells = [f"{found[n]:.1%}" if n in found else "" for n in passes]
            lines.append((name, *cells, str(game["answers"][name]["enough"] or f"more than {max(found)}")))
        doubt = f", whose own standard error is {game['doubt']:.1%}" if game["doubt"] else ""
        parts += [f"{game['title']}{doubt}; {game['repeats']} seeds:"]
        parts += ["\n".join("| " + " | ".join(line) + " |" for line in lines)]
    return "\n\n".join(parts)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
