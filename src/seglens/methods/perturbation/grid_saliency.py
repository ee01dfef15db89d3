"""Grid saliency: the least surroundings with which the region keeps its score.

A coarse mask over what the target can see is optimised: as little as possible is kept, while no pixel of the region
may score less than on the clean image (scoring more is free). The region itself always stays visible. The score is the
target's value: its logit, margin or probability, as asked; for ``dice`` it is the probability. λ and the loss are in
units of the clean score for logits and margins, and as they are for probabilities, so that one λ serves all.

The published rule shows the baseline with the lowest loss. A baseline that imitates the evidence (grey, where a bright
mark is the evidence) loses nothing without context and wins by that rule, so it is a choice here and not the default.
"""

from typing import Annotated, Literal

import torch

from seglens.core.errors import ImageMismatch, NoSuchRegion
from seglens.core.explanation import Explanation, Figure, Layer
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Param
from seglens.engine import optimise
from seglens.engine.case import Case
from seglens.methods.perturbation._context import Context, Found, baselines, solve, told

Cells = Annotated[int, Param("Cells of the mask along each axis; finer masks find adversarial patterns.", ge=1, le=16)]
Weight = Annotated[float, Param("λ: what keeping context costs, as a share of the score.", ge=0, le=100, step=0.01)]
Per = Annotated[
    Literal["cell", "mask"],
    Param("λ is the price of one cell (the sum of the mask, as published), or of the whole mask (its mean)."),
]
Baseline = Annotated[
    Literal["typical", "lowest", "mean", "0", "0.25", "0.5", "0.75", "1"],
    Param(
        "What hides context. Typical: all are tried, the mean is shown; lowest: the one with the lowest loss is shown, "
        "as published; or one alone: the mean, or a share of the range of intensities.",
        quick="mean",
    ),
]
Steps = Annotated[int, Param("Steps of the descent at most.", ge=1, le=10_000)]
Rate = Annotated[float, Param("Step size.", gt=0, le=100)]
Momentum = Annotated[float, Param("Share of the last step that goes on.", ge=0, lt=1)]
First = Annotated[float, Param("Value of the mask before the first step.", ge=0, le=1)]
Copies = Annotated[int, Param("Noisy copies per step.", ge=1, le=100)]
Noise = Annotated[float, Param("Noise on hidden context, in deviations of the image; 0: none.", ge=0, le=10)]


class GridSaliency(Method):
    """The minimal context of a region: how much of its surroundings a decision needs, and which."""

    title = "Grid saliency"
    cite = "hoyer2019"
    survey = (15,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    works_on = "any network with gradients"
    needs = frozenset({Need.GRADIENT})

    cells: Cells = 8
    weight: Weight = 0.02
    per: Per = "cell"
    baseline: Baseline = "typical"
    steps: Steps = 150
    rate: Rate = 0.2
    momentum: Momentum = 0.5
    first: First = 0.5
    copies: Copies = 1
    noise: Noise = 0.0

    def check(self, case: Case) -> None:
        """A region that leaves some context; an annotation of the image's size."""
        if case.target.region.all():
            raise NoSuchRegion("The region is the whole image: there is no context.", fix="Choose one object.")
        if case.annotation is not None and case.annotation.shape != case.shape:
            raise ImageMismatch(
                f"The annotation has shape {case.annotation.shape}, the image {case.shape}.",
                fix="Draw the biased context on this image.",
            )

    def passes(self, case: Case) -> tuple[float, int]:
        """Forwards and backwards of the field for every step, baseline and copy; a backward counts as 1.5 forwards."""
        rows = len(baselines(case, self.baseline))
        evaluations = self.steps * rows * self.copies * (1 + optimise.BACKWARD)
        return (evaluations + 2 * rows) * optimise.share(case) + 1, round(evaluations + 2 * rows + 1)

    def run(self, case: Case) -> Explanation:
        """The mask, the picture that it keeps, the labels on it, and what each baseline found."""
        fills = baselines(case, self.baseline)
        context = Context(
            case, torch.cat(list(fills.values())), cells=self.cells, weight=self.weight, per_cell=self.per == "cell",
            copies=self.copies if self.noise > 0 else 1, noise=self.noise,
        )  # fmt: skip
        found = solve(context, steps=self.steps, rate=self.rate, momentum=self.momentum, first=self.first)
        shown = int(found.losses.argmin()) if self.baseline == "lowest" else 0
        names = list(fills)
        lines = {name: list(line) for name, line in zip(names, zip(*found.history, strict=True), strict=False)}
        figure = Figure("loss", "line", list(range(len(found.history))), lines, "step", "loss")
        return Explanation(
            self._layers(case, context, found.masks[shown : shown + 1], fills[names[shown]]),
            (told(context, found, names, shown),),
            (figure,) if found.history else (),
            self._text(case, context, found, names, shown),
        )

    def _layers(self, case: Case, context: Context, mask: torch.Tensor, fill: torch.Tensor) -> tuple[Layer, ...]:
        kept = case.paste(context.spread(mask)[0, 0])
        shown = torch.from_numpy(case.target.region).to(kept.device)
        picture = torch.where(shown, case.x, kept * case.x + (1 - kept) * fill)
        image = case.intensities(picture)
        after = case.classes(case.forward(picture))[0]
        return (
            Layer("needed context", "heat", (kept * ~shown).cpu().numpy(), "share kept"),
            Layer("kept context", "image", image, rgb=image.ndim > after.ndim and image.shape[-1] == 3),
            Layer("labels before", "labels", case.labels),
            Layer("labels with kept context", "labels", after),
        )

    def _text(self, case: Case, context: Context, found: Found, names: list[str], shown: int) -> str:
        hidden, needed = float(found.scores_hidden[shown]), found.needed
        clean = f"the score of {case.target.name} ({case.target.value}) is {case.clean_score:.4g}"
        others = f" {int(needed.sum())} of {len(names)} baselines need context." if len(names) > 1 else ""
        if not needed[shown]:
            return f"No context needed: {clean}, and {hidden:.4g} with all of it hidden (by {names[shown]}).{others}"
        return (
            f"Minimal context: {context.share(found.masks)[shown]:.1%} of what the network can see around the region. "
            f"{clean[0].upper()}{clean[1:]}; without context it is {hidden:.4g}, with this one "
            f"{float(found.scores[shown]):.4g} (hidden by {names[shown]}; a loss of 1 is {context.scale:.3g} of the "
            f"score).{others}"
        )
