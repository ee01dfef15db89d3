"""The results as Markdown, and into the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
)
NAMES = {
    "basicunet": "MONAI BasicUNet, 2.0 million parameters, reach about 100 px, random weights",
    "unet": "U-Net of SegLens, features 16, 32, 64, reach about 20 px, random weights",
    "unet3d": "3-D U-Net of SegLens, features 8, 16, 32, random weights",
}


def markdown(results: dict[str, Any]) -> str:
    """Tables by network, and what their signs mean."""
    parts = [_machine(results["machine"])]
    for network in dict.fromkeys(row["network"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["network"] == network]
        lines = [HEAD, ("---",) * len(HEAD), *(_row(row) for row in rows)]
        parts += [f"**{NAMES[network]}**", "\n".join("| " + " | ".join(line) + " |" for line in lines)]
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
        f"{machine['cores']} cores ({machine['processor']}, {machine['system']}), {machine['threads']} threads, torch "
        f"{machine['torch']}, Captum {machine['captum']}, MONAI {machine['monai']}, {machine['date']}. Costs are in "
        "ordinary forward passes of the same network on the same image (batch 1, default layout and allocator, the "
        "median of several around each measurement), then in seconds. Each contender ran in a process of its own; "
        "ours includes everything a first question needs, in brackets the same question asked again with another fill. "
        "`~` a part was measured and scaled. `=` the cost of another row of this size (times 50 for fifty objects): "
        "these run the same passes. MONAI's occlusion raises on segmentation networks, and ran with a wrapper. "
        "The difference is of ours from the straight loop, and from the peer, as a share of the largest drop. Memory: "
        "growth of resident memory while it worked, ours and then the best peer's, in MiB."
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
    grown = [told.get(name, {}).get("memory_mib") for name in ("ours", row["best_peer"])]
    memory = ", ".join("-" if m is None else f"{m:.0f}" for m in grown)
    found = _differences(told)
    return (row["title"], size, str(row["evaluations"]), mine, loop, captum or "-", monai, times, found, memory)


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
    found = {
        ("loop" if n == "loop" else n.split()[0].title()): t["difference"] for n, t in told.items() if "difference" in t
    }
    out = [f"{name} {d['relative']:.0e}" for name, d in found.items()]
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
        "**Accuracy of Shapley values.** Root mean square error over units and repeats, as a share of the root mean "
        "square of the true values, by the number of passes."
    ]
    for game in accuracy["games"]:
        passes = sorted({int(n) for errors in game["errors"].values() for n in errors})
        lines = [("passes", *map(str, passes)), ("---",) * (len(passes) + 1)]
        for name, errors in game["errors"].items():
            cells = [f"{errors[str(n)]:.1%}" if str(n) in errors else "" for n in passes]
            lines.append((name, *cells))
        parts += [game["title"], "\n".join("| " + " | ".join(line) + " |" for line in lines)]
    needed = ", ".join(accuracy["passes_told"])
    return "\n\n".join([*parts, f"Passes that equal Captum's Kernel SHAP with 500 samples: {needed}."])


def _number(value: float) -> str:
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
