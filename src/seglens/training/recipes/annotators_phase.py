"""Single cells in phase contrast, as each of several experts outlines them."""

from seglens.models.spec import ClassSpec, ModelSpec, Normalisation
from seglens.training.recipe import Phase, Recipe

RECIPE = Recipe(
    spec=ModelSpec(
        name="annotators-phase",
        axes="YX",
        channels=("phase contrast",),
        classes=(ClassSpec("background", "#00000000"), ClassSpec("cell", "#26c6da")),
        normalisation=Normalisation("zscore"),
        tile=(512, 512),
        licence="BSD-3-Clause; trained on BU-BIL data set 1 (Boston University, BSD with advertising clause)",
        description="Cells in phase contrast, as each of several experts would outline them; the mask is their mean.",
    ),
    network="annotator-unet",
    arguments={"in_channels": 1, "out_channels": 2, "features": [8, 16, 32, 32, 32], "prototypes": 3},
    augmentation="light",
    border=0,
    zoom=(0.8, 1.25),
    crop=256,
    batch=4,
    steps=40,
    # What the experts agree on comes first; then only kernels and prototypes learn. Validation knows the agreed mask
    # alone, so it cannot say which epoch tells experts apart best.
    phases=(Phase("together", 20, 3e-3), Phase("experts", 5, 2e-2, only=("head",), select_best=False)),
    task="seglens.training.annotators.AnnotatorTask",
    options={"pull": 0.1, "diversity": 0.1, "kernels": 1e-3, "annotators": "*_Amira"},
)
