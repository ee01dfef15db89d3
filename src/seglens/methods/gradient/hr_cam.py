"""HR-CAM: what each resolution of the network adds to a class, by a linear read-out of its layers."""

from typing import Annotated

import torch

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method, Need
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.channels import stages
from seglens.methods.gradient._readout import ReadOut, fit, followed
from seglens.methods.gradient._shared import as_map

Ridge = Annotated[
    float, Param("Penalty on the read-out's weights; more of it shares among channels alike.", gt=0, le=10)
]
Pixels = Annotated[
    int, Param("Pixels of each image that the read-out is fitted on, drawn at random.", ge=100, le=1_000_000)
]
FOLLOWS = 0.5  # R² below which the map tells little of the network


class HRCAM(Method):
    """The read-out is fitted to the network's own logits on this image and on references, and its terms are shown.

    It explains the read-out: how well that follows the network is told with it, on pixels that it was not fitted on.
    It says at which resolution a pixel's class is drawn, not which other pixels it depends on.
    """

    title = "HR-CAM"
    cite = "shinde2019"
    survey = (147,)
    fidelity = Fidelity.AFTER
    works_on = "networks whose layers can be seen"
    needs = frozenset({Need.LAYER})
    takes = frozenset({Need.REFERENCE})
    locates = False

    ridge: Ridge = 1e-4
    pixels: Pixels = 20_000

    def passes(self, case: Case) -> tuple[float, int]:
        """One for each image."""
        images = 1 + len(case.reference)
        return float(images), images

    def run(self, case: Case) -> Explanation:
        """The sum over resolutions, each resolution, and the mask that the read-out draws."""
        every = stages(case.model)
        deepest = max(range(len(every)), key=lambda i: every[i].stride)
        names = [layer.name for layer in every[: deepest + 1]]
        out = fit(case, names, self.ridge, self.pixels)
        target = case.target  # frozen by the pass of the fit
        own, drawn = out.parts[:, target.index], out.logits()
        region = torch.from_numpy(target.region).to(own.device)
        adds = [float(part[region].mean()) for part in own]
        sizes = [float(part[region].abs().mean()) for part in own]
        share = [size / max(sum(sizes), 1e-12) for size in sizes]
        labels = case.logits[0].argmax(0)
        alike = [float((out.logits(i).argmax(0) == labels).float().mean()) for i in range(len(names))]
        follows = _follows(case, out)
        fits, held = follows.columns["R² of the logit"]
        if held < FOLLOWS:
            case.run.note(
                f"Where it was not fitted, the read-out has R² {held:.2f} with the network: do not take its map for "
                "the network's."
            )
        layers = [Layer(self.title, "signed", as_map(own.sum(0)), "logit")]
        layers += [
            Layer(f"from {name}", "signed", as_map(part), "logit", resolution=size)
            for name, part, size in zip(names, own, out.sizes, strict=True)
        ]
        layers.append(Layer("what the read-out draws", "labels", drawn.argmax(0).to(torch.uint8).cpu().numpy()))
        table = Table(
            "resolutions",
            {
                "layer": names,
                "stride": [layer.stride for layer in every[: deepest + 1]],
                "adds in the region": adds,
                "share": share,
                "pixels drawn alike without it": alike,
            },
        )
        most = max(range(len(names)), key=share.__getitem__)
        text = (
            f"HR-CAM of {target.name}: a linear read-out of {len(names)} layers has R² {held:.3f} with its logit and "
            f"draws {follows.columns['pixels drawn alike'][1]:.1%} of the pixels as the network does, where it was not "
            f"fitted (R² {fits:.3f} where it was). In the region {names[most]} has the largest "
            f"share, {share[most]:.0%}, and adds {adds[most]:+.3g} logits."
        )
        bars = Figure("share of each resolution", "bar", names, {"share": share}, "layer", "share")
        return Explanation(tuple(layers), (table, follows), (bars,), text)


def _follows(case: Case, out: ReadOut) -> Table:
    """How well the read-out follows the network on the pixels it was fitted on, and when their blocks are held out."""
    index = case.target.index
    there, fitted = (logits.flatten(1)[:, out.at] for logits in (case.logits[0], out.logits()))
    told = (fitted, out.held)
    return Table(
        "how well it follows the network",
        {
            "pixels": ["fitted", "held out"],
            "R² of the logit": [followed(there[index], one[index]) for one in told],
            "pixels drawn alike": [float((one.argmax(0) == there.argmax(0)).float().mean()) for one in told],
        },
    )
