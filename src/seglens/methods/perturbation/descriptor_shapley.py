"""Descriptor Shapley: which measured property of an object (size, shape, light, …) speaks for the network's answer."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from seglens.core.errors import NoSuchRegion
from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Fidelity, Method
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.methods.perturbation._descriptors import Objects, find_objects
from seglens.methods.perturbation._heads import COMPARED, Fitted, Head, fit, shapley, standing

HeadKind = Annotated[
    Head,
    Param(
        "What is fitted to the descriptors: a ridge regression or a random forest of the target's value, or a logistic "
        "regression of being of the target's class among the objects of all classes."
    ),
]
Among = Annotated[
    Literal["class", "all"], Param("Fit to objects of the explained object's class, or to all objects.", quick="all")
]
Smallest = Annotated[int, Param("Leave out other objects of fewer pixels than this.", ge=1, le=1_000_000, unit="px")]


class DescriptorShapley(Method):
    """Shares of an object's descriptors in what a small model, fitted to all objects, says of it."""

    title = "Descriptor Shapley"
    cite = "karimzadeh2023"
    survey = (139,)
    fidelity = Fidelity.SMALL
    works_on = "images with several objects"
    places = False

    head: HeadKind = "linear"
    among: Among = "class"
    smallest: Smallest = 8

    def passes(self, case: Case) -> tuple[float, int]:
        """None beyond the clean one."""
        return (0.0, 0)

    def run(self, case: Case) -> Explanation:
        """Shares per descriptor; maps of what the head and the network say of each object, against their means."""
        case.run.progress(0, 2, "objects")
        found = find_objects(case, self.smallest, same_class=self.among == "class" and self.head != "logistic")
        wanted = self._wanted(case, found)
        case.run.progress(1, 2, "fit")
        head = fit(self.head, found.table, wanted, case.run.seed)
        others = torch.randperm(len(found.numbers), generator=case.generator())[:COMPARED].sort()[0].numpy()
        shares = shapley(head.answer, found.table[found.one], found.table[others])
        case.run.progress(2, 2, "shares")
        return self._answer(case, found, wanted, head, shares)

    def _wanted(self, case: Case, found: Objects) -> NDArray[np.float64]:
        """What the head is to predict of each object (N,)."""
        if self.head != "logistic":
            return found.means(case.target.per_pixel(case.logits)[0].cpu().double().numpy())
        # an object is of one class
        of_class = (found.means(case.drawn()) > 0.5).astype(np.float64)
        if min(of_class.sum(), (1 - of_class).sum()) < 2:
            raise NoSuchRegion(
                f"{int(of_class.sum())} of {len(of_class)} objects are of class {case.target.name}; to tell classes "
                "apart takes two of it and two others.",
                fix="Use --head linear, or choose a larger part of the image.",
            )
        return of_class

    def _answer(
        self, case: Case, found: Objects, wanted: NDArray[np.float64], head: Fitted, shares: NDArray[np.float64]
    ) -> Explanation:
        says = head.answer(found.table)
        unit = "log-odds" if self.head == "logistic" else case.target.value
        drawn = {f"{self.head} head": (says, unit), "network": (wanted, case.target.value)}
        layers = [
            Layer(f"{who}, against its mean", "signed", found.painted(values - values.mean()), of)
            for who, (values, of) in drawn.items()
        ]
        one = (found.labels == found.numbers[found.one]).astype(np.uint8)
        names = [*found.measured]
        columns: dict[str, list[Any]] = {
            "descriptor": names,
            "value": found.table[found.one].tolist(),
            "mean of objects": found.table.mean(0).tolist(),
            "Shapley value": shares.tolist(),
        }
        bars = Figure("Shapley values", "bar", names, {"Shapley value": shares.tolist()}, "descriptor", unit)
        both = Figure("head and network", "scatter", wanted.tolist(), {"head": says.tolist()}, "network", "head")
        most = int(np.abs(shares).argmax())
        text = (
            f"Object {found.numbers[found.one]} among {len(found.numbers)}, asked for {case.target.name}: the head "
            f"says {says[found.one]:.4g} ({unit}), {shares.sum():+.4g} against the mean of the objects. The largest "
            f"share, {shares[most]:+.4g}, is that of {names[most]}. {standing(self.head, head, found.measured)}"
        )
        layers.append(Layer("explained object", "labels", one))
        return Explanation(tuple(layers), (Table("descriptors", columns),), (bars, both), text)
