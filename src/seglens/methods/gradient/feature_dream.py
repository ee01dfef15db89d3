"""Feature dream: which measurable features of an object the network wants more of, and which it ignores."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.explanation import Explanation, Figure, Layer
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.methods.gradient._dream import Asked, Clip, Drive, Smooth, Steps, StepSize
from seglens.methods.gradient._followed import Followed
from seglens.methods.gradient._paths import placed
from seglens.methods.gradient._shared import as_map
from seglens.methods.gradient._verdicts import verdicts

LOOKS = 20  # times that objects are measured on the way
BETWEEN = 3  # parts of the way; the mask is shown where they meet
Controls = Annotated[
    int, Param("Shuffled changes whose effect on the features is no more than chance.", ge=4, le=1000, quick=4)
]


class FeatureDream(Method):
    """The image is driven up the gradient of the target, and the features of its objects are followed.

    The curves hang on the image that they start from: what holds for a network holds on ten images or more.
    """

    title = "Feature dream"
    cite = "couteaux2019"
    survey = (110,)
    fidelity = Fidelity.AFTER
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})

    steps: Steps = 100
    size: StepSize = 0.01
    drive: Asked = "region"
    smooth: Smooth = 0.0
    clip: Clip = False
    controls: Controls = 40

    def passes(self, case: Case) -> tuple[float, int]:
        """A gradient per step; looks and controls are forwards."""
        share, _ = case.sampler.passes(1)
        return self.steps * share + LOOKS + self.controls, self.steps + LOOKS + self.controls

    def run(self, case: Case) -> Explanation:
        """The change, the image and mask at the end, curves of the features and what they are worth."""
        drive = Drive(case, self.steps, self.size, self.smooth, self.clip, self.drive)
        seen, steps, every = Followed(case, drive.box), [0], max(1, self.steps // LOOKS)
        masks = {}
        seen.curves.append(seen.measured(*drive.now))
        for step in drive.walk():
            if step % every == 0 or step == self.steps:
                seen.curves.append(seen.measured(*(now := drive.now)))
                steps.append(step)
                masks[step] = _mask(case, drive, now[1])
        if not seen.drawn:
            case.run.note(f"The model draws no {case.target.name} in the region; its own outline is followed.")
        shuffled = np.array([seen.apart(*one) for one in drive.controls(self.controls)])
        table, curves, told = verdicts(seen, shuffled, steps)
        score = Figure("score", "line", [*range(len(drive.scores))], {"score": [*drive.scores]}, "step", "score")
        text = (
            f"Driving the image by {plural(self.steps, 'step')} took the score of {case.target.name} from "
            f"{drive.scores[0]:.4g} to {drive.scores[-1]:.4g}; {drive.fine():.0%} of the change is finer than two "
            f"pixels. {told} This is one image to start from: look at ten before you speak of the network."
        )
        return Explanation(_layers(case, drive, masks), (table,), (curves, score), text)


def _mask(case: Case, drive: Drive, logits: Tensor) -> NDArray[np.uint8]:
    """What the model draws of the driven image (*space)."""
    mask = np.array(case.labels)
    mask[drive.box] = case.classes(logits)[0]
    return mask


def _layers(case: Case, drive: Drive, masks: dict[int, NDArray[np.uint8]]) -> tuple[Layer, ...]:
    looks = [*masks]
    between = sorted({looks[len(looks) * part // BETWEEN] for part in range(1, BETWEEN)} - {looks[-1]})
    change = placed(case, drive.change[0], drive.box)
    return (
        Layer("change", "signed", as_map(change[0].sum(0)), "normalised input"),
        Layer("driven image", "image", case.intensities(drive.x), rgb=drive.x.shape[1] == 3),
        Layer("mask after", "labels", masks[looks[-1]]),
        *(Layer(f"mask after step {step}", "labels", masks[step]) for step in between),
    )
