"""What can be trained by name: network, classes, normalisation, augmentation and schedule. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from seglens.core.errors import UnknownName
from seglens.models.nets import check_name
from seglens.models.spec import ClassSpec, ModelSpec, Normalisation

Augmentation = Literal["fluorescence", "histology", "flips"]


@dataclass(frozen=True)
class Recipe:
    """Everything but the data and the seed.

    Args:
        spec: what the finished model says of itself; divisor, reach and sha256 are filled in after training.
        network, arguments: what :func:`seglens.models.nets.build_network` is called with.
        augmentation: a key of :data:`seglens.training.augment.AUGMENTATIONS`.
        zoom: range of random magnifications.
        border: width in pixels of the class ``border``, the inner rim of each object; 0 for no such class.
        crop: side of the training crops in pixels.
        batch: crops per step.
        steps: steps per epoch.
        epochs: passes of ``steps`` each, with one validation after each.
        rate: highest learning rate of the one-cycle schedule (AdamW).
        synthetic: the pictures are drawn by code, and no data folder is read.
    """

    spec: ModelSpec
    arguments: Mapping[str, Any]
    augmentation: Augmentation
    network: str = "unet"
    zoom: tuple[float, float] = (0.6, 1.6)
    border: int = 2
    crop: int = 160
    batch: int = 8
    steps: int = 50
    epochs: int = 20
    rate: float = 3e-3
    synthetic: bool = False


_NUCLEI = (
    ClassSpec("background", "#00000000"),
    ClassSpec("nucleus", "#26c6da"),
    ClassSpec("border", "#ffb300"),
)

RECIPES: Mapping[str, Recipe] = {
    "nuclei-fluorescence": Recipe(
        spec=ModelSpec(
            name="nuclei-fluorescence",
            axes="YX",
            channels=("nuclei",),
            classes=_NUCLEI,
            normalisation=Normalisation("percentile", low=1.0, high=99.8),
            tile=(512, 512),
            licence="BSD-3-Clause; trained on CC0 images",
            description="Nuclei, bright on dark, in fluorescence images; border is the inner rim of each nucleus.",
        ),
        arguments={"in_channels": 1, "out_channels": 3, "features": [16, 32, 64, 128]},
        augmentation="fluorescence",
    ),
    "nuclei-histology": Recipe(
        spec=ModelSpec(
            name="nuclei-histology",
            axes="YX",
            channels=("red", "green", "blue"),
            classes=_NUCLEI[:2],
            normalisation=Normalisation("dtype", then_mean=0.65, then_std=0.2),
            tile=(512, 512),
            licence="BSD-3-Clause; trained on CC0 images",
            description="Blue to purple nuclei in stained tissue.",
        ),
        arguments={"in_channels": 3, "out_channels": 2, "features": [16, 32, 64, 128]},
        augmentation="histology",
        epochs=16,
        border=0,
    ),
    "shortcut-synthetic": Recipe(
        spec=ModelSpec(
            name="shortcut-synthetic",
            axes="YX",
            channels=("grey",),
            classes=(
                ClassSpec("background", "#00000000"),
                ClassSpec("healthy", "#26c6da"),
                ClassSpec("infected", "#ec407a"),
            ),
            normalisation=Normalisation("dtype"),
            tile=(512, 512),
            licence="BSD-3-Clause; trained on drawn pictures",
            description="A model that is right for the wrong reason: it reads a mark beside the cell.",
        ),
        arguments={"in_channels": 1, "out_channels": 3, "features": [8, 16, 32, 64]},
        augmentation="flips",
        border=0,
        zoom=(1.0, 1.0),
        crop=160,
        steps=40,
        rate=5e-3,
        synthetic=True,
    ),
}


# Highest learning rates of networks that do not bear a recipe's own, which is a U-Net's.
RATES: Mapping[str, float] = {"segmenter": 1e-3}


def with_network(recipe: Recipe, network: str) -> Recipe:
    """The recipe with another of our networks, in its usual size.

    Raises:
        UnknownName: there is no such network.
    """
    check_name(network)
    spec = recipe.spec
    arguments = {"in_channels": len(spec.channels), "out_channels": len(spec.classes), "dims": spec.ndim}
    return replace(recipe, network=network, arguments=arguments, rate=RATES.get(network, recipe.rate))


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in RECIPES:
        listing = f"Recipes: {', '.join(RECIPES)}."
        raise UnknownName.among("recipe", name, RECIPES, listing=listing)
    return RECIPES[name]
