"""Guided Grad-CAM: guided backpropagation where Seg-Grad-CAM sees evidence for the target."""

import torch

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Need
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod, activation_map, cam_layer, seen_at
from seglens.engine.rules import Backprop, Trace
from seglens.methods.gradient._cams import spatial_mean
from seglens.methods.gradient._rules import declared
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers


class GuidedGradCAM(LayerMethod):
    """The class activation map, enlarged, times the guided map: fine detail of what a layer finds."""

    title = "Guided Grad-CAM"
    cite = "schorr2021"
    survey = (96, 126)
    fidelity = Fidelity.EXACT
    needs = frozenset({Need.GRADIENT, Need.LAYER})

    show: Show = "magnitude"
    channels: EachChannel = False

    def run(self, case: Case) -> Explanation:
        """The product, and the map of the layer beside it."""
        name = case.layer(self.layer)
        activation, gradient = case.activations(name)
        cam = activation_map(case, activation, spatial_mean(gradient[0]))
        coarse = cam_layer("Seg-Grad-CAM", cam, True, "", own=activation.shape[2:])
        trace = Trace(case, Backprop("guided"))
        values = trace.back().values * torch.from_numpy(coarse.data).to(case.x)
        layers = input_layers(case, self.title, values, self.show, "guided signal", self.channels)
        told = "" if cam.any() else " The class activation map is zero there, and so is the product."
        text = (
            f"Guided Grad-CAM of {case.target.name} over {plural(case.target.pixels, 'pixel')} at layer {name} "
            f"({seen_at(case, activation)}).{told}{declared(trace)}"
        )
        return Explanation((*layers, coarse), channel_table(case, values), text=text)
