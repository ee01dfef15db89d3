"""Cross-model CAM: the class activation maps of two models on one image, and how far they agree."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import MissingNeed, UnknownName
from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Need
from seglens.core.param import Param
from seglens.engine.agreement import flat, inside, rank_correlation, structure, top_overlap
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod, activation_map, cam_layer, seen_at
from seglens.methods.gradient._cams import plus_plus, spatial_mean

DOTS = 2000  # pixels in the plot of both maps

By = Annotated[Literal["grad-cam", "grad-cam++"], Param("How the channels of a layer are weighted.")]
OtherLayer = Annotated[str | None, Param("Layer of the second model.", empty="chosen by looking at the network")]
OtherClass = Annotated[str | None, Param("Class of the second model.", empty="the one of the same name")]
Top = Annotated[float, Param("The strongest part of each map, to be compared.", gt=0, le=50, unit="%")]


class CrossModelCAM(LayerMethod):
    """Both models are asked about the same pixels, wherever the second one draws the class.

    Layers and sizes differ, so ranks are compared, and places, not values.
    """

    title = "Cross-model CAM"
    cite = "bardozzo2022"
    survey = (129,)
    fidelity = Fidelity.AFTER
    needs = frozenset({Need.GRADIENT, Need.LAYER, Need.SECOND_MODEL})

    by: By = "grad-cam"
    second_layer: OtherLayer = None
    second_class: OtherClass = None
    top: Top = 20.0

    def check(self, case: Case) -> None:
        """Raise UnknownName if a layer or the class is not there, MissingNeed if the second's layers cannot be seen."""
        super().check(case)
        self._other(case).layer(self.second_layer)

    def run(self, case: Case) -> Explanation:
        """Both maps, their difference, and their agreement."""
        other = self._other(case)
        one, where, coarse = self._cam(case, self.layer)
        two, there, coarse2 = self._cam(other, self.second_layer)
        region, names = case.target.region, (f"first: {case.model.spec.name}", f"second: {other.model.spec.name}")
        layers = [cam_layer(names[0], one, True, "", own=coarse), cam_layer(names[1], two, True, "", own=coarse2)]
        apart = Layer("first − second", "signed", layers[0].data - layers[1].data, "share of the maximum")
        values = {
            "rank correlation": rank_correlation(one, two),
            "structural similarity": structure(one, two),
            f"IoU of the strongest {self.top:g} %": top_overlap(one, two, self.top / 100),
            "first: part in the region": inside(one, region),
            "second: part in the region": inside(two, region),
        }
        table = Table("agreement", {"measure": list(values), "value": list(values.values())})
        text = f"Two models on {case.target.name}: {names[0]} at layer {where}; {names[1]} at layer {there}. "
        text += _nothing(names, one, two) or (
            f"Their maps have rank correlation {values['rank correlation']:.2f}; IoU of the strongest {self.top:g} % "
            f"of their pixels: {list(values.values())[2]:.2f}."
        )
        return Explanation((*layers, apart), (table,), (_both(case, *layers),), text)

    def _other(self, case: Case) -> Case:
        """The second model, asked about the same pixels."""
        if case.second is None:
            raise MissingNeed(f"{self.title} compares two models, and one was given.", fix="Add a second model.")
        try:
            index = case.second.model.spec.class_index(self.second_class or case.target.name)
        except UnknownName as error:
            raise UnknownName(error.what, fix=f"{error.fix} Name one of them with --second-class.") from error
        return case.second.about(replace(case.second.target, index=index, weights=case.target.weights))

    def _cam(self, case: Case, wanted: str | None) -> tuple[NDArray[np.float32], str, tuple[int, ...]]:
        name = case.layer(wanted)
        activation, gradient = case.activations(name)
        weigh = {"grad-cam": lambda a, g: spatial_mean(g), "grad-cam++": plus_plus}[self.by]
        cam = activation_map(case, activation, weigh(activation[0], gradient[0]))
        return cam, f"{name} ({seen_at(case, activation)})", tuple(activation.shape[2:])


def _nothing(names: tuple[str, str], *maps: NDArray[np.float32]) -> str:
    """Which of the maps have nothing to be compared, in words; empty if both have."""
    empty = [
        f"{name} ({'the same' if m.any() else 'zero'} everywhere)"
        for name, m in zip(names, maps, strict=True)
        if flat(m)
    ]
    if not empty:
        return ""
    return (
        f"There is nothing to compare in the map of {' and '.join(empty)}: without an order and strongest places, "
        "no correlation, similarity or IoU is given."
    )


def _both(case: Case, one: Layer, two: Layer) -> Figure:
    """Both maps at some pixels, one against the other."""
    rng = np.random.default_rng(case.run.seed)
    at = rng.choice(one.data.size, min(DOTS, one.data.size), replace=False)
    x, y = one.data.ravel()[at], two.data.ravel()[at]
    return Figure("both maps", "scatter", x.tolist(), {two.name: y.tolist()}, one.name, two.name)
