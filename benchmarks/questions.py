"""What is asked, of which networks at which sizes, and who answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import inf, prod
from typing import Any

from benchmarks.scenes import LAYER, MANY, NETWORKS, Scene

WINDOW, STRIDE = 32, 16
UNITS = 64  # of a grid, for Kernel SHAP and LIME
Sizes = dict[str, tuple[tuple[int, ...], ...]]  # by network
FLAT = ((256, 256), (512, 512), (1024, 1024))
SIZES: Sizes = {"basicunet": FLAT, "basicunet-thin": ((2048, 2048),), "unet": FLAT, "unet3d": ((64, 128, 128),)}
QUICK_SIZES: Sizes = {"basicunet": ((128, 128),), "unet": ((128, 128),), "unet3d": ((32, 64, 64),)}
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
        passes: samples that a straight loop sends through the network; of occlusion the windows.
        family: of methods.
        networks, smallest, largest: where it is asked; sizes in pixels.
    """

    name: str
    title: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    target: str = "class"
    contenders: tuple[str, ...] = ("ours", "loop")
    borrows: dict[str, tuple[str, int]] = field(default_factory=dict)
    passes: int = 0
    family: str = "perturbation"
    networks: tuple[str, ...] = tuple(NETWORKS)
    smallest: float = 0
    largest: float = inf

    def asked_of(self, scene: Scene) -> bool:
        """Whether it is asked of a scene."""
        return scene.network in self.networks and self.smallest <= scene.size <= self.largest

    def evaluations(self, scene: Scene) -> int:
        """Samples that a straight loop sends through the network."""
        return self.passes or prod(counts(scene.shape, (STRIDE,) * len(scene.shape)))


def same(question: str, contenders: Sequence[str], factor: int = 1) -> dict[str, tuple[str, int]]:
    """These contenders run the passes of another question so many times."""
    return dict.fromkeys(contenders, (question, factor))


OCCLUDING = ("loop", "captum Occlusion", "monai OcclusionSensitivity")
SHAPLEY = ("captum KernelShap", "captum ShapleyValueSampling", "loop")
GRID = {"units": "grid", "pieces": UNITS, "fill": "black"}
BLACK_BOX = ("basicunet", "basicunet-thin", "unet3d")

PERTURBATION = (
    Question(
        "occlusion", "occlusion 32/16, whole class", "occlusion", OCCLUSION,
        contenders=("ours", "captum Occlusion", "monai OcclusionSensitivity", "loop"),
    ),
    Question(
        "occlusion-object", "occlusion 32/16, one object", "occlusion", OCCLUSION, "object", ("ours",),
        same("occlusion", OCCLUDING),
    ),
    Question(
        "occlusion-painted", "occlusion 32/16, painted 64² region", "occlusion", OCCLUSION, "painted", ("ours",),
        same("occlusion", OCCLUDING),
    ),
    Question(
        "occlusion-fifty", f"occlusion 32/16, {MANY} objects at once", "occlusion", OCCLUSION, "many", ("ours",),
        same("occlusion", OCCLUDING, MANY), smallest=400**2,
    ),
    Question(
        "kernel-shap", f"Kernel SHAP, {UNITS} units, accuracy of Captum's 500 samples", "kernel-shap", GRID,
        contenders=("ours", *SHAPLEY), passes=500, networks=BLACK_BOX,
    ),
    Question(
        "kernel-shap-default", f"Kernel SHAP, {UNITS} units, SegLens's own number of passes", "kernel-shap", GRID,
        contenders=("ours",), borrows=same("kernel-shap", ("captum KernelShap", "loop")), passes=500,
        networks=("basicunet",), largest=256**2,
    ),
    Question(
        "lime", f"LIME, {UNITS} units, 500 samples", "lime", {**GRID, "samples": 500},
        contenders=("ours", "captum Lime", "loop"), passes=500, networks=("basicunet",), largest=512**2,
    ),
    Question(
        "rise", "RISE, 1000 masks", "rise", {"samples": 1000, "fill": "black", "stop": None}, passes=1000,
        networks=("basicunet",), largest=512**2,
    ),
    Question(
        "ablation-cam", "Ablation-CAM, 256 channels", "seg-ablation-cam", {"layer": LAYER},
        contenders=("ours", "captum LayerFeatureAblation", "loop"), passes=256, networks=("basicunet",),
        largest=512**2,
    ),
)  # fmt: skip


def twice(
    name: str,
    title: str,
    method: str,
    parameters: dict[str, Any],
    peers: tuple[str, ...] = (),
    *,
    passes: int = 1,
    looped: bool = False,
    largest: float = inf,
) -> tuple[Question, Question]:
    """A gradient method on the whole class, and on a painted region, of which the others compute as much.

    Args:
        name, title, method, parameters, passes, largest: see :class:`Question`.
        peers: contenders for the whole class.
        looped: whether the straight loop is that of the plain gradient, run once per pass.
    """
    loop = same("gradient", ("loop",), passes) if looped else {}
    networks = ("basicunet", "basicunet-thin")
    more = {"passes": passes, "family": "gradient", "networks": networks, "largest": largest}
    whole = Question(name, f"{title}, whole class", method, parameters, "class", ("ours", *peers), loop, **more)
    borrowed = loop | same(name, peers)
    painted = f"{title}, painted 64² region"
    return whole, Question(f"{name}-painted", painted, method, parameters, "painted", ("ours",), borrowed, **more)


BLACK = {"fill": "black"}
SIGNED = {"show": "signed"}
BOTTLENECK = {"layer": LAYER, "normalise": False}
GRADIENT = (
    *twice("gradient", "vanilla gradient", "vanilla-gradient", SIGNED, ("captum Saliency", "loop")),
    *twice(
        "integrated-gradients", "integrated gradients, 32 steps", "integrated-gradients",
        {"steps": 32, **BLACK, **SIGNED},
        ("captum IntegratedGradients", "captum IntegratedGradients, few at once"), passes=32, looped=True,
    ),
    *twice(
        "smooth-grad", "SmoothGrad, 25 copies", "smooth-grad",
        {"samples": 25, "spread": 0.1, **SIGNED},
        ("captum NoiseTunnel", "captum NoiseTunnel, few at once"), passes=25, looped=True,
    ),
    *twice(
        "gradient-shap", "GradientSHAP, 50 samples", "gradient-shap",
        {"samples": 50, "spread": 0.1, **BLACK, **SIGNED},
        ("captum GradientShap", "captum GradientShap, few at once"), passes=50, looped=True,
    ),
    *twice("deep-lift", "DeepLift", "deep-lift", {**BLACK, **SIGNED}, ("captum DeepLift",), passes=2),
    *twice("lrp", "LRP ε-plus", "lrp", {"composite": "epsilon-plus"}, ("captum LRP",)),
    *twice("guided-backprop", "guided backprop", "guided-backprop", SIGNED, ("captum GuidedBackprop",)),
    *twice("grad-cam", "Seg-Grad-CAM, bottleneck", "seg-grad-cam", BOTTLENECK, ("captum LayerGradCam",)),
    *twice(
        "score-cam", "Seg-Score-CAM, 256 channels", "seg-score-cam", {"layer": LAYER, **BLACK}, ("loop",), passes=256,
        largest=512**2,
    ),
)  # fmt: skip
QUESTIONS = (*PERTURBATION, *GRADIENT)


def question(name: str) -> Question:
    """The question of a name."""
    return next(q for q in QUESTIONS if q.name == name)


def scenes(sizes: Mapping[str, Sequence[tuple[int, ...]]]) -> Iterator[Scene]:
    """Every network at each of its sizes."""
    for network, shapes in sizes.items():
        for shape in shapes:
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
