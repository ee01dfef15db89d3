"""Blue to purple nuclei in stained tissue, beside pink and brown."""

from seglens.models.spec import ModelSpec, Normalisation
from seglens.training.recipe import NUCLEI, Recipe

RECIPE = Recipe(
    spec=ModelSpec(
        name="nuclei-histology",
        axes="YX",
        channels=("red", "green", "blue"),
        classes=NUCLEI[:2],
        normalisation=Normalisation("dtype", then_mean=0.65, then_std=0.2),
        tile=(512, 512),
        licence="BSD-3-Clause; trained on CC0 images",
        description="Blue to purple nuclei in stained tissue.",
    ),
    arguments={"in_channels": 3, "out_channels": 2, "features": [16, 32, 64, 128]},
    augmentation="histology",
    epochs=16,
    border=0,
)
