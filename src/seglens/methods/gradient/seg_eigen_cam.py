"""Seg-Eigen-CAM: what a layer tells apart most, whatever is asked."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Need, Scope
from seglens.core.param import Normalise
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod, activation_map, cam_layer, principal, seen_at, strongest


class SegEigenCAM(LayerMethod):
    """A layer's answers along their first principal component; the same for every class and region.

    The sign of a component is free: here the map is turned so that the few places that stand out are positive.
    (A method of 2025 with the same name chooses the sign by the target.)
    """

    title = "Seg-Eigen-CAM"
    cite = "gizzini2023"
    survey = (94,)
    fidelity = Fidelity.EXACT
    scope = Scope.IMAGE
    needs = frozenset({Need.LAYER})
    locates = False

    normalise: Normalise = True

    def run(self, case: Case) -> Explanation:
        """A signed map, zero where the layer answers as it does on the average."""
        name = case.layer(self.layer)
        activation = case.activation(name)
        vector, share = principal(activation)
        centred = activation - activation.mean(tuple(range(2, activation.ndim)), keepdim=True)
        cam = activation_map(case, centred, vector, rectified=False)
        table, bars = strongest({"weight": vector}, "channel weights", "channel weights")
        text = (
            f"Seg-Eigen-CAM of layer {name} ({seen_at(case, activation)}): the direction in which its answers differ "
            f"most has {share:.0%} of their variance. It is the same whatever is explained."
        )
        layer = cam_layer(self.title, cam, self.normalise, "activation", "signed", activation.shape[2:])
        return Explanation((layer,), (table,), (bars,), text)
