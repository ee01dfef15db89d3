"""Two phases of a superalloy under the electron microscope by prototypes."""

from seglens.models.spec import ClassSpec, ModelSpec, Normalisation
from seglens.training.recipe import Phase, Recipe

RECIPE = Recipe(
    spec=ModelSpec(
        name="proto-superalloy",
        axes="YX",
        channels=("electrons",),
        classes=(
            ClassSpec("background", "#00000000"),
            ClassSpec("phase 1", "#42a5f5"),
            ClassSpec("phase 2", "#ef5350"),
        ),
        normalisation=Normalisation("zscore"),
        tile=(512, 512),
        licence="BSD-3-Clause; trained on images under the MIT licence",
        description="Large (phase 1) and small (phase 2) precipitates of a superalloy in electron micrographs.",
    ),
    network="proto-unet",
    arguments={
        "in_channels": 1,
        "out_channels": 3,
        "features": [8, 16, 32, 64],
        "level": 1,
        "width": 32,
        "per_class": 5,
    },
    augmentation="light",
    loss="cross-entropy + dice",
    truth="classes",
    measure="classes",
    zoom=(0.8, 1.25),
    crop=128,
    steps=30,
    phases=(
        Phase("warm-up", 1, 3e-3, only=("decoder", "addon", "head.similarity")),
        Phase("joint", 8, 3e-3, rates={"head.weight": 0.0}),
        Phase("last layer", 2, 1e-2, only=("head.weight",)),
    ),
    task="seglens.training.prototypes.PrototypeTask",
    options={"diversity": 0.25, "off_class": 1e-4},
)
