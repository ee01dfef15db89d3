"""Layer-fusion CAM: the class activation maps of all depths in one, each weighted by how well it lies on the mask."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import MissingNeed
from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method, Need
from seglens.core.param import Normalise, Param
from seglens.engine.case import Case
from seglens.engine.channels import activation_map, cam_layer, seen_at, stages
from seglens.methods.gradient._cams import spatial_mean

Mask = Annotated[
    Literal["region", "annotation", "none"],
    Param(
        "What a map should lie on to count: the region, what a person drew (any label above 0), or nothing (all count "
        "alike)."
    ),
]


class LayerFusionCAM(Method):
    """Weights score how plausible a depth's map is, and not how faithful: a copy of the mask would win.

    The weights of the publication come from many images and drawn masks; here they come from this image. Its layer of
    random Fourier features (CRFF) belongs to a network and is no part of this: any network is asked.
    """

    title = "Layer-fusion CAM"
    cite = "aguirre2023"
    survey = (148,)
    fidelity = Fidelity.AFTER
    works_on = "networks whose layers can be seen"
    needs = frozenset({Need.GRADIENT, Need.LAYER})

    mask: Mask = "region"
    normalise: Normalise = True

    def check(self, case: Case) -> None:
        """Raise MissingNeed if the mask is an annotation that is not there."""
        if self.mask == "annotation" and case.annotation is None:
            raise MissingNeed(
                "Maps are to lie on an annotation, and none was given.",
                fix="Choose a Labels layer, add --annotation FILE, or use mask=region.",
            )

    def passes(self, case: Case) -> tuple[float, int]:
        """One pass forth and back for all depths."""
        return case.sampler.passes(1)

    def run(self, case: Case) -> Explanation:
        """The fused map, and that of every depth."""
        names = [layer.name for layer in stages(case.model)]
        pairs = case.activations_at(names)
        cams = [activation_map(case, a, spatial_mean(g[0])) for a, g in pairs]
        on = case.target.region if self.mask != "annotation" else np.asarray(case.annotation) > 0
        fits = np.array([float(cam[on].mean()) if on.any() else 0.0 for cam in cams])
        weights = fusion_weights(np.zeros_like(fits) if self.mask == "none" else fits)
        shown = [
            cam_layer(name, cam, True, "", own=a.shape[2:])
            for name, cam, (a, _) in zip(names, cams, pairs, strict=True)
        ]
        fused = np.einsum("l,l...->...", weights, np.stack([layer.data for layer in shown])).astype(np.float32)
        if self.normalise and np.ptp(fused) > 0:
            fused = (fused - fused.min()) / np.ptp(fused)
        table = Table(
            "depths",
            {
                "layer": names,
                "map": [seen_at(case, a) for a, _ in pairs],
                "mean on the mask": fits.tolist(),
                "weight": weights.tolist(),
            },
        )
        best = names[int(weights.argmax())]
        text = (
            f"Layer-fusion CAM of {case.target.name} from {len(names)} depths, weighted by {self.mask}: {best} has the "
            f"largest weight, {weights.max():.0%}. The weights tell where maps lie, not what the network needs."
        )
        bars = Figure("weights", "bar", names, {"weight": weights.tolist()}, "layer", "weight")
        return Explanation((Layer(self.title, "heat", fused, "share of the maximum"), *shown), (table,), (bars,), text)


def fusion_weights(fits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of what maps have on the mask, as shares of the largest; alike where none has anything."""
    top = float(fits.max())
    powers = np.exp(fits / top) if top > 0 else np.ones_like(fits)
    return np.asarray(powers / powers.sum())
