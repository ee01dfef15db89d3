"""Fusion map: per pixel the highest score of any class, and whose it is."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Fidelity, Method, Scope
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.methods.gradient._regions import score_kind, score_unit
from seglens.methods.gradient._shared import as_map

Background = Annotated[
    bool, Param("Let the background take part; without it, the map shows what comes nearest to an object.")
]


class FusionMap(Method):
    """All class score maps in one: where the model is sure of something, whatever it is."""

    title = "Fusion map"
    cite = "schorr2021"
    survey = (96,)
    fidelity = Fidelity.AFTER
    scope = Scope.IMAGE
    locates = False

    background: Background = False

    def run(self, case: Case) -> Explanation:
        """The highest score, its class, and how far the second is."""
        first = 0 if self.background else 1
        names = [c.name for c in case.model.spec.classes][first:]
        every = [replace(case.target, index=first + k).per_pixel(case.logits)[0] for k in range(len(names))]
        scores = torch.stack(every)
        best = scores.argmax(0).cpu().numpy()
        unit = score_unit(case)
        layers = [
            Layer(self.title, score_kind(case), as_map(scores.amax(0)), unit),
            Layer("class of the highest score", "labels", (best + first).astype(np.uint8)),
        ]
        if len(names) > 1:
            two = scores.topk(2, 0).values
            layers.append(Layer("lead over the second", "heat", as_map(two[0] - two[1]), unit))
        share = [float((best == k).mean()) for k in range(len(names))]
        mean = [float(one.mean()) for one in scores]
        table = Table("classes", {"class": names, "highest on": share, f"mean {unit}": mean})
        told = ", ".join(f"{name} on {part:.0%}" for name, part in zip(names, share, strict=True)) + " of the image."
        if len(names) == 1:
            told = f"there is only {names[0]}, and this is its score."
        without = "" if self.background else f" (without {case.model.spec.classes[0].name})"
        return Explanation(tuple(layers), (table,), text=f"Highest {unit} of any class{without}: {told}")
