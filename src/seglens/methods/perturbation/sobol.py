"""Sobol indices: the share of the target's variance that each cell is part of, interactions included."""

from typing import Annotated, Literal

import torch
from scipy.stats import qmc
from torch import Tensor

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Method
from seglens.core.param import Fill, Param
from seglens.engine.case import Case
from seglens.engine.perturb import Mixed
from seglens.engine.units import Units
from seglens.methods.perturbation._designs import Exchanged
from seglens.methods.perturbation._estimators import shares
from seglens.methods.perturbation._shared import unit_bars, unit_table

Cells = Annotated[
    int | None,
    Param("About how many cells along each axis.", ge=2, le=32, empty="8, in volumes 4"),
]
Points = Annotated[
    Literal[4, 8, 16, 32, 64, 128, 256, 512, 1024],
    Param("Points of the Sobol sequence; each costs one evaluation per cell and two more.", quick=8),
]


class Sobol(Method):
    """Total-order indices by Jansen's estimator on a scrambled Sobol sequence."""

    title = "Sobol indices"
    cite = "fel2021"
    survey = (187, 186)
    fidelity = Fidelity.EXACT

    cells: Cells = None
    points: Points = 32
    fill: Fill = "mean"

    def passes(self, case: Case) -> tuple[float, int]:
        """Points times cells and two."""
        return case.passes(self._copies(case, self._units(case)))

    def run(self, case: Case) -> Explanation:
        """A heat map of total shares (no sign), the cells with their first-order shares."""
        units = self._units(case)
        copies = self._copies(case, units)
        scores = torch.full((len(copies),), torch.nan, dtype=torch.float64)
        for which, made in case.score_steps(copies, "evaluations"):
            scores[which] = made
            case.run.partial(lambda: self._answer(case, units, scores))
        return self._answer(case, units, scores)

    def _units(self, case: Case) -> Units:
        dims = len(case.shape)
        return case.units("grid", (self.cells or (8 if dims == 2 else 4)) ** dims)

    def _copies(self, case: Case, units: Units) -> Mixed:
        d = len(units)
        seed = int(torch.randint(2**31, (1,), generator=case.generator()))
        sequence = torch.from_numpy(qmc.Sobol(2 * d, scramble=True, seed=seed).random(self.points))
        return Mixed(case.x, case.fill(self.fill), Exchanged(units.labels, sequence[:, :d], sequence[:, d:]))

    def _answer(self, case: Case, units: Units, scores: Tensor) -> Explanation:
        by_point = scores.reshape(-1, len(units) + 2)
        by_point = by_point[~by_point.isnan().any(1)]
        found = shares(by_point)
        layer = Layer("total share of variance", "heat", units.spread(found.total).numpy(), "share of variance")
        columns = {"total share": found.total, "standard error": found.error, "first-order share": found.first}
        table = unit_table("cells", units, {name: values.tolist() for name, values in columns.items()})
        text = f"Sobol indices of {case.target.name}: {len(by_point)} points, {len(units)} cells faded to {self.fill}. "
        if not found.total.any():
            text += "The target is insensitive: no fading of cells changes it, and the map is zero."
        else:
            most, whole = int(found.total.argmax()), float(found.total.sum())
            together = ": cells act together" if whole - 1 > 2 * found.sum_error else ""
            text += (
                f"The largest total share is {float(found.total[most]):.2f} ± {float(found.error[most]):.2f}; all add "
                f"up to {whole:.2f} ± {found.sum_error:.2f}{together}. A share has no sign: it does not say whether a "
                "cell speaks for or against the class."
            )
        return Explanation((layer,), (table,), (unit_bars("top cells", units, columns, "share of variance"),), text)
