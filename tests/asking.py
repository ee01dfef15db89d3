"""How tests ask any method of the catalogue: which network, which image, what a person brings along."""

from __future__ import annotations

import copy

import numpy as np

import seglens
from annotating import ConstantAnnotators, DeepAnnotators, PlantedAnnotators
from banks import bank_for
from hand import (
    Attending,
    AttendingConstant,
    AttendingDeep,
    Brightest,
    Constant,
    Context,
    Deep,
    Matched,
    cell_target,
    context_image,
    wrap,
)
from prototypes import ConstantPrototypes, DeepPrototypes, PlantedPrototypes
from seglens.core.explanation import Explanation
from seglens.core.method import Need
from seglens.core.run import Run
from seglens.models.segmentation import SegmentationModel
from seglens.session import explain

NAMES = list(seglens.METHODS)

# Noise makes bright spots, and to the usual plant these are more evidence: here the marker counts by its exactness.
# Of a deconvolution, which does not ask whether a ReLU was active, only max pooling knows the image.
PLANTS = {"u-noise": Matched, "smooth-u-noise": Matched, "deconvolution": Brightest}


# What shows a layer or the network's answer itself claims no evidence; its own test asks what it shows.
SHOWN = {
    "seg-eigen-cam",
    "layer-activations",
    "hr-cam",
    "segmented-score-map",
    "guided-segmentation-map",
    "similarity-map",
    "fusion-map",
    "segmentation-ability",
    "prototype-rules",
    "annotator-prototypes",
    "proto-seg",
}


def nets(name):
    """What a method is asked about: a network with planted evidence, a constant one, and one of random weights."""
    if Need.ATTENTION in seglens.METHODS[name].needs:
        return Attending, AttendingConstant, AttendingDeep
    if Need.PROTOTYPES in seglens.METHODS[name].needs:
        return PlantedPrototypes, ConstantPrototypes, DeepPrototypes
    if Need.ANNOTATORS in seglens.METHODS[name].needs:
        return PlantedAnnotators, ConstantAnnotators, DeepAnnotators
    return Context, Constant, Deep


def plant(name, dims):
    """The network of the planted evidence, as a model: it reads a marker beside a cell."""
    module = nets(name)[0](dims=dims)
    return wrapped(module, dims, ("background", "healthy", "infected"))


def wrapped(module, dims, classes):
    return wrap(module, dims=dims, classes=classes, divisor=getattr(module, "divisor", 1))


def least(name):
    """The fewest axes that a method takes."""
    return min(seglens.METHODS[name].dims)


def brought(name, model):
    """What a person brings along: a second model just like the first, a bank of the model's features."""
    needs, found = seglens.METHODS[name].needs, {}
    if Need.SECOND_MODEL in needs:
        found["second_model"] = SegmentationModel(copy.deepcopy(model.module), model.spec, device=model.device)
    if Need.BANK in needs and model.layered:
        found["bank"] = bank_for(model)
    return found


def quick(name):
    """The method as it is asked in tests: few samples."""
    return seglens.METHODS[name].quick()


def ask(
    name, *, dims=None, seed=0, batch=None, module=None, image=None, target=None, run=None, device="cpu"
) -> Explanation:
    """The answer of a method, quickly set, on a network that is moved to a device."""
    dims = dims or least(name)
    if module is None:
        module = nets(name)[0](dims=dims)
    if image is None:
        image, cell, _ = context_image(dims)
        target = target or cell_target(cell)
    names = (
        ("background", "healthy", "infected")
        if isinstance(module, Context | Matched | Attending)
        else ("background", "cell", "other")
    )
    model = wrapped(module, dims, names[: module.head.out_channels]).to(device)
    return explain(quick(name), image, model, target, run=run or Run(seed=seed, batch=batch), **brought(name, model))


def numbers(explanation):
    """All values of all layers in a row."""
    return np.concatenate([np.asarray(layer.data, float).ravel() for layer in explanation.layers])
