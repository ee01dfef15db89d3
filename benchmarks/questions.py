"""What is asked, of which networks at which sizes, and who answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf, prod
from typing import Any

from benchmarks.scenes import LAYERS, MANY, NETWORKS, Scene

WINDOW, STRIDE = 32, 16
UNITS = 64  # of a grid, for Kernel SHAP and LIME
SAMPLES = {"kernel-shap": 500, "lime": 500, "rise": 1000}
Sizes = dict[int, tuple[tuple[int, ...], ...]]
SIZES: Sizes = {2: ((256, 256), (512, 512), (1024, 1024), (2048, 2048)), 3: ((64, 128, 128),)}
QUICK_SIZES: Sizes = {2: ((128, 128),), 3: ((32, 64, 64),)}
Box = tuple[slice, ...]
OCCLUSION = {"window": WINDOW, "stride": STRIDE, "fill": "black"}


@dataclass(frozen=True)
class Question:
    """One row of the table per scene.

    Args:
        name: short, for ``--only``.
        title: for people.
        method: its name in SegLens.
        parameters: of our method.
        target: see :meth:`benchmarks.scenes.Scene.mask`; ``many`` asks for fifty objects.
        contenders: who answers, in order.
        borrows: contenders whose cost is that of another question on the same scene, times a factor, as they run the
            same passes.
        lender: this other question.
        networks, smallest, largest: where it is asked; sizes in pixels.
    """

    name: str
    title: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    target: str = "class"
    contenders: tuple[str, ...] = ("ours", "loop")
    borrows: dict[str, int] = field(default_factory=dict)
    lender: str = "occlusion"
    networks: tuple[str, ...] = tuple(NETWORKS)
    smallest: float = 0
    largest: float = inf

    def asked_of(self, scene: Scene) -> bool:
        """Whether it is asked of a scene."""
        return scene.network in self.networks and self.smallest <= scene.size <= self.largest

    def evaluations(self, scene: Scene) -> int:
        """Perturbed copies that a straight loop scores."""
        if self.method == "occlusion":
            return prod(counts(scene.shape, (STRIDE,) * len(scene.shape)))
        return 256 if self.method == "seg-ablation-cam" else SAMPLES[self.method]


SAME_PASSES = {"loop": 1, "captum Occlusion": 1, "monai OcclusionSensitivity": 1}
SHAPLEY = ("captum KernelShap", "captum ShapleyValueSampling", "loop")
GRID = {"units": "grid", "pieces": UNITS, "fill": "black"}

QUESTIONS = (
    Question(
        "occlusion", "occlusion 32/16, whole class", "occlusion", OCCLUSION,
        contenders=("ours", "captum Occlusion", "monai OcclusionSensitivity", "loop"),
    ),
    Question(
        "occlusion-object", "occlusion 32/16, one object", "occlusion", OCCLUSION, "object", ("ours",), SAME_PASSES,
    ),
    Question(
        "occlusion-painted", "occlusion 32/16, painted 64² region", "occlusion", OCCLUSION, "painted", ("ours",),
        SAME_PASSES,
    ),
    Question(
        "occlusion-fifty", f"occlusion 32/16, {MANY} objects at once", "occlusion", OCCLUSION, "many", ("ours",),
        dict.fromkeys(SAME_PASSES, MANY), networks=("basicunet", "unet"), smallest=400**2, largest=1024**2,
    ),
    Question(
        "kernel-shap", f"Kernel SHAP, {UNITS} units, accuracy of Captum's 500 samples", "kernel-shap", GRID,
        contenders=("ours", *SHAPLEY), networks=("basicunet", "unet3d"), largest=1024**2,
    ),
    Question(
        "kernel-shap-default", f"Kernel SHAP, {UNITS} units, SegLens's own number of passes", "kernel-shap", GRID,
        contenders=("ours",), borrows=dict.fromkeys(SHAPLEY, 1), lender="kernel-shap",
        networks=("basicunet",), largest=256**2,
    ),
    Question(
        "lime", f"LIME, {UNITS} units, 500 samples", "lime", {**GRID, "samples": 500},
        contenders=("ours", "captum Lime", "loop"), networks=("basicunet",), largest=512**2,
    ),
    Question(
        "rise", "RISE, 1000 masks", "rise", {"samples": 1000, "fill": "black", "stop": None},
        networks=("basicunet",), largest=512**2,
    ),
    Question(
        "ablation-cam", "Ablation-CAM, 256 channels", "seg-ablation-cam", {"layer": LAYERS["basicunet"]},
        contenders=("ours", "captum LayerFeatureAblation", "loop"), networks=("basicunet",), largest=512**2,
    ),
)  # fmt: skip


def question(name: str) -> Question:
    """The question of a name."""
    return next(q for q in QUESTIONS if q.name == name)


def scenes(sizes: Mapping[int, Sequence[tuple[int, ...]]]) -> Iterator[Scene]:
    """Every network at every size of its number of axes."""
    for network, dims in NETWORKS.items():
        for shape in sizes.get(dims, ()):
            yield Scene(network, shape)


def counts(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Windows per axis."""
    return [(max(n, WINDOW) - WINDOW) // s + 1 for n, s in zip(shape, strides, strict=True)]


def sampled(shape: Sequence[int], affordable: float) -> tuple[int, ...]:
    """Strides, multiples of the stride asked for, that give as many windows as can be afforded, at least two per axis.

    Windows reach both borders and lie on the lattice of all windows, so that answers can be compared.
    """
    steps = [max(1, (n - WINDOW) // STRIDE) for n in shape]
    choices = [[STRIDE * m for m in range(1, n + 1) if n % m == 0] for n in steps]
    fewest = tuple(c[-1] for c in choices)
    fitting = [s for s in product(*choices) if prod(counts(shape, s)) <= affordable]
    return max(fitting, key=lambda s: (prod(counts(shape, s)), -max(s)), default=fewest)


def lattice(shape: Sequence[int], strides: Sequence[int]) -> list[Box]:
    """The windows of these strides."""
    lines = [
        [slice(i * s, i * s + WINDOW) for i in range(c)] for s, c in zip(strides, counts(shape, strides), strict=True)
    ]
    return list(product(*lines))
