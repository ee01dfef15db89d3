"""Nuclei, bright on dark, each with a rim that parts those that touch."""

from seglens.models.spec import ModelSpec, Normalisation
from seglens.training.recipe import NUCLEI, Recipe

RECIPE = Recipe(
    spec=ModelSpec(
        name="nuclei-fluorescence",
        axes="YX",
        channels=("nuclei",),
        classes=NUCLEI,
        normalisation=Normalisation("percentile", low=1.0, high=99.8),
        tile=(512, 512),
        licence="BSD-3-Clause; trained on CC0 images",
        description="Nuclei, bright on dark, in fluorescence images; border is the inner rim of each nucleus.",
    ),
    arguments={"in_channels": 1, "out_channels": 3, "features": [16, 32, 64, 128]},
    augmentation="fluorescence",
)
