"""HR-CAM: what each resolution of the network adds to a class, by a linear read-out of its layers."""

from typing import Annotated

import torch

from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method, Need
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.channels import stages
from seglens.methods.gradient._readout import fit, followed
from seglens.methods.gradient._shared import as_map

Ridge = Annotated[
    float, Param("Penalty on the read-out's weights; more of it shares among channels alike.", gt=0, le=10)
]
Pixels = Annotated[int, Param("Pixels that the read-out is fitted on, drawn at random.", ge=100, le=1_000_000)]


class HRCAM(Method):
    """The read-out is fitted to the network's own logits on this image, and its terms are shown.

    It explains the read-out: how well that follows the network is told with it. It says at which resolution a pixel's
    class is drawn, not which other pixels it depends on.
    """

    title = "HR-CAM"
    cite = "shinde2019"
    survey = (147,)
    fidelity = Fidelity.AFTER
    works_on = "networks whose layers can be seen"
    needs = frozenset({Need.LAYER})
    locates = False

    ridge: Ridge = 1e-4
    pixels: Pixels = 20_000

    def run(self, case: Case) -> Explanation:
        """The sum over resolutions, each resolution, and the mask that the read-out draws."""
        every, target = stages(case.model), case.target
        deepest = max(range(len(every)), key=lambda i: every[i].stride)
        names = [layer.name for layer in every[: deepest + 1]]
        out = fit(case, names, self.ridge, self.pixels)
        own, drawn = out.parts[:, target.index], out.logits()
        region = torch.from_numpy(target.region).to(own.device)
        adds = [float(part[region].mean()) for part in own]
        sizes = [float(part[region].abs().mean()) for part in own]
        share = [size / max(sum(sizes), 1e-12) for size in sizes]
        labels = case.logits[0].argmax(0)
        alike = [float((out.logits(i).argmax(0) == labels).float().mean()) for i in (None, *range(len(names)))]
        fits = followed(case.logits[0, target.index], drawn[target.index])
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
                "pixels drawn alike without it": alike[1:],
            },
        )
        most = max(range(len(names)), key=share.__getitem__)
        text = (
            f"HR-CAM of {target.name}: a linear read-out of {len(names)} layers has R² {fits:.3f} with its logit and "
            f"draws {alike[0]:.1%} of the pixels as the network does. In the region {names[most]} has the largest "
            f"share, {share[most]:.0%}, and adds {adds[most]:+.3g} logits."
        )
        bars = Figure("share of each resolution", "bar", names, {"share": share}, "layer", "share")
        return Explanation(tuple(layers), (table,), (bars,), text)
