"""What followed features are worth: how far each moved, beside what shuffled changes do."""

import numpy as np

from seglens.core.explanation import Figure, Table
from seglens.core.plural import plural
from seglens.methods.gradient._followed import Followed, Mask, Numbers


def verdicts(seen: Followed, shuffled: Numbers, steps: list[int]) -> tuple[Table, Figure, str]:
    """Table, curves and a sentence: how far each feature moved, beside what shuffled changes do (draws, objects, F).

    An object that a shuffled change makes vanish is not a number there, and left out of that draw.
    """
    curves = np.array(seen.curves)  # (looks, objects, features)
    first, change = curves[0].mean(0), (curves[-1] - curves[0]).mean(0)
    gone: Mask = np.asarray(np.isnan(shuffled).all(2))  # (draws, objects)
    kept = shuffled[~gone.all(1)]
    known = len(kept) > 0
    band = np.quantile(np.abs(np.nanmean(kept - curves[0], 1)), 0.95, axis=0) if known else np.zeros(len(first))
    deviation = seen.deviation()
    scale = np.abs(first) if deviation is None else deviation
    scale = np.where(scale > 1e-12, scale, 1.0)
    agree = ((np.sign(curves[-1] - curves[0]) == np.sign(change)).mean(0) * (change != 0)).tolist()
    sure = (np.abs(change) > np.maximum(band, 1e-6 * scale)) & known
    words = [_word(float(c), bool(s)) if known else "not known" for c, s in zip(change, sure, strict=True)]
    unit = "first value" if deviation is None else "deviation over objects"
    table = Table("features", {
        "feature": seen.names, "first": first.tolist(), "last": (first + change).tolist(),
        f"change / {unit}": (change / scale).tolist(), "by chance (95 %)": (band / scale).tolist(),
        "objects that agree": agree, "verdict": words,
    })  # fmt: skip
    series = {name: ((curves[:, :, i].mean(1) - first[i]) / scale[i]).tolist() for i, name in enumerate(seen.names)}
    figure = Figure("features", "line", steps, series, "step", f"change / {unit}")
    order = np.argsort(-np.abs(change / scale))
    wanted = ", ".join(f"{seen.names[i]} ({change[i] / scale[i]:+.2g})" for i in order if sure[i]) or "none"
    left = ", ".join(seen.names[i] for i in order if not sure[i]) or "none"
    told = f"Sensitive to (of {plural(len(seen), 'object')}): {wanted}. Robust to: {left}."
    if not known:
        told = (
            "No shuffled change leaves an object, so what is more than chance is not known. Take fewer steps or a "
            "smaller size."
        )
    elif gone.any():
        told += f" {int(gone.any(1).sum())} of {len(gone)} shuffled changes lost an object, which does not count there."
    if seen.lost:
        told += f" {len(seen.lost)} of {plural(len(seen), 'object was', 'objects were')} lost on the way."
    return table, figure, told


def _word(change: float, sure: bool) -> str:
    if not sure:
        return "robust"
    return "sensitive: more" if change > 0 else "sensitive: less"
