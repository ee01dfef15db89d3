"""Smooth U-Noise: U-Noise whose noise may not jump between neighbours, except at edges of the image.

The publication's term was not read; this one is ours: per pixel the sum over its neighbours q of
exp(-|x - x_q|²/τ)·|B - B_q|, or plain total variation, weighted by γ. With γ = 0 it is U-Noise to the last bit. A
map that is smooth cannot follow evidence of single pixels: look at the Dice of the table against that of U-Noise.
"""

from typing import Annotated, Literal

from seglens.core.method import Fidelity
from seglens.core.param import Param
from seglens.methods.perturbation._noise import Smooth, edges, variation
from seglens.methods.perturbation.u_noise import UNoise

Smoothness = Annotated[float, Param("γ: what jumps of the noise between neighbours cost.", ge=0, le=100, step=0.01)]
Tau = Annotated[float, Param("τ: squared difference, in deviations, from which pixels are an edge.", gt=0, le=1000)]
Term = Annotated[
    Literal["edges", "variation"], Param("Jumps are cheaper at edges of the image, or cost the same everywhere.")
]


class SmoothUNoise(UNoise):
    """U-Noise with a smoothing term: calmer maps that keep to the edges of the image."""

    title = "Smooth U-Noise"
    cite = "survey-151"
    survey = (151,)
    fidelity = Fidelity.AFTER

    smoothness: Smoothness = 0.01
    tau: Tau = 0.1
    term: Term = "edges"

    def smooth(self) -> Smooth | None:
        """The smoothing term; none for γ = 0."""
        if self.smoothness == 0:
            return None
        term = edges(self.tau) if self.term == "edges" else variation
        return lambda b, x: self.smoothness * term(b, x)
