"""Drawn cells with a mark beside each infected one, which is what the network learns to read."""

from seglens.models.spec import ClassSpec, ModelSpec, Normalisation
from seglens.training.recipe import Recipe

RECIPE = Recipe(
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
    truth="classes",
    border=0,
    zoom=(1.0, 1.0),
    steps=40,
    rate=5e-3,
    synthetic=True,
)
