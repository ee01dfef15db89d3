"""Annotator prototypes: what each of several annotators would draw, and who speaks for the mask where they differ."""

from typing import Annotated

import torch

from seglens.core.errors import MissingNeed, UnknownName
from seglens.core.explanation import Explanation, Figure, Layer
from seglens.core.method import Fidelity, Method, Need, Timing
from seglens.core.param import Param
from seglens.engine.annotators import Opinions, check_annotators, records_of
from seglens.engine.case import Case
from seglens.methods.prototype._annotators import masks, people, spoken, why

Of = Annotated[str | None, Param("Whose mask is asked about: the name of an annotator.", empty="the network's own")]


class AnnotatorPrototypes(Method):
    """Who drew it so is told by the nearest prototypes, and only where not all draw the same."""

    title = "Annotator prototypes"
    cite = "cheng2023tax"
    survey = (133,)
    fidelity = Fidelity.AFTER
    timing = Timing.AD_HOC
    works_on = "networks of several annotators"
    needs = frozenset({Need.ANNOTATORS, Need.LAYER})
    locates = False

    of: Of = None

    def check(self, case: Case) -> None:
        """Raise MissingNeed for any other network, UnknownName if nobody is called so."""
        head = self._head(case)
        if self.of is not None and self.of not in head:
            raise UnknownName.among("annotator", self.of, head, listing=f"Annotators: {', '.join(head)}.")

    def passes(self, case: Case) -> tuple[float, int]:
        """One."""
        return (1.0, 1)

    def run(self, case: Case) -> Explanation:
        """Their disagreement, who speaks for the mask, a mask for each; the nearest prototypes."""
        opinions, names = Opinions.of(case), self._head(case)
        drawn = opinions.answer if self.of is None else opinions.labels[names.index(self.of)]
        at, shares = opinions.who(drawn)
        who = torch.zeros_like(opinions.answer, dtype=torch.uint8)
        who[at] = (shares.argmax(0) + 1).to(torch.uint8)
        bits = opinions.entropy().reshape(case.shape).float().cpu().numpy()
        region = torch.from_numpy(case.target.region).to(at.device).flatten()
        table = people(case, opinions)
        about = at[region[at]]
        layers = (
            Layer("disagreement", "heat", bits, "bits"),
            Layer("who (where they differ)", "labels", who.reshape(case.shape).cpu().numpy()),
            *masks(case, opinions),
        )
        tables = (table, *([why(case, opinions, drawn, about, records_of(case.model))] if len(about) else []))
        area = {case.target.name: table.columns[f"pixels of {case.target.name}"]}
        bars = [Figure("area by annotator", "bar", names, area, "annotator", "pixels")]
        if len(about):
            mean = {"share": shares[:, region[at]].mean(1).tolist()}
            bars.append(Figure("who, in the region", "bar", names, mean, "annotator", "share"))
        mask = "the network's mask" if self.of is None else f"the mask of {self.of}"
        return Explanation(layers, tables, tuple(bars), spoken(case, opinions, at, shares, mask))

    def _head(self, case: Case) -> list[str]:
        try:
            return list(check_annotators(case.model).names)
        except MissingNeed as lack:
            raise MissingNeed(f"{self.title} tells annotators apart: {lack.what}", fix=lack.fix) from None
