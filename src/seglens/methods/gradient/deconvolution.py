"""Deconvolution: the target projected back through the network, ReLUs handing on all that is positive."""

from seglens.methods.gradient.guided_backprop import GuidedBackprop


class Deconvolution(GuidedBackprop):
    """As guided backpropagation, but a ReLU does not ask whether it was active: only max pooling sees the image."""

    title = "Deconvolution"
    cite = "zeiler2014"
    survey = (27, 172)
    kind = "deconvolution"
