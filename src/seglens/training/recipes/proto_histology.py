"""Nuclei in stained tissue by prototypes: each logit is a sum over pixels of training images."""

from seglens.models.spec import ModelSpec, Normalisation
from seglens.training.recipe import NUCLEI, Phase, Recipe

RECIPE = Recipe(
    spec=ModelSpec(
        name="proto-histology",
        axes="YX",
        channels=("red", "green", "blue"),
        classes=NUCLEI[:2],
        normalisation=Normalisation("dtype", then_mean=0.65, then_std=0.2),
        tile=(512, 512),
        licence="BSD-3-Clause; trained on CC0 images",
        description="Blue to purple nuclei in stained tissue, by likeness with prototypes from training images.",
    ),
    network="proto-unet",
    arguments={
        "in_channels": 3,
        "out_channels": 2,
        "features": [16, 32, 64, 128],
        "level": 1,
        "width": 64,
        "per_class": 10,
    },
    augmentation="histology",
    loss="cross-entropy",
    measure="classes",
    border=0,
    crop=128,
    steps=30,
    phases=(
        Phase("warm-up", 1, 3e-3, only=("decoder", "addon", "head.similarity")),
        Phase("joint", 10, 3e-3, rates={"head.weight": 0.0}),
        Phase("last layer", 2, 1e-2, only=("head.weight",)),
    ),
    task="seglens.training.prototypes.PrototypeTask",
    options={"diversity": 0.25, "off_class": 1e-4},
)
