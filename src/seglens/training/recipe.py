"""What a recipe is: everything that a training needs but the data and the seed. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from seglens.core.errors import BadParameter
from seglens.models.nets import check_name
from seglens.models.spec import ClassSpec, ModelSpec

Truth = Literal["instances", "classes"]
Measure = Literal["foreground", "classes"]
Schedule = Literal["one-cycle", "cosine", "polynomial", "constant"]

PLAIN = "seglens.training.tasks.Task"
# Highest learning rates of networks that do not bear a recipe's own, which is a U-Net's.
RATES: Mapping[str, float] = {"segmenter": 1e-3}


@dataclass(frozen=True)
class Phase:
    """A stretch of a training with an optimiser and a schedule of its own.

    Args:
        name: shown to people and given to the task: "warm-up", "joint", "last layer".
        epochs: passes of the recipe's ``steps`` each, with one validation after each.
        rate: highest learning rate (AdamW).
        rates: other rates by prefix of parameter names, the longest prefix counts; 0 freezes what it names.
        only: prefixes that learn; empty for all.
        select_best: go on with the weights of the best validation epoch of this phase, not of the last.
        schedule: how the rate goes over the phase.
    """

    name: str
    epochs: int
    rate: float
    rates: Mapping[str, float] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    select_best: bool = True
    schedule: Schedule = "one-cycle"

    def rate_of(self, parameter: str) -> float:
        """The highest learning rate of a parameter by its name; 0 if it is frozen."""
        if self.only and not any(under(parameter, prefix) for prefix in self.only):
            return 0.0
        fitting = [prefix for prefix in self.rates if under(parameter, prefix)]
        return self.rates[max(fitting, key=len)] if fitting else self.rate


def under(parameter: str, prefix: str) -> bool:
    """Whether a parameter's name is this prefix or lies below it: ``head`` holds ``head.bias``, not ``header.bias``."""
    return f"{parameter}.".startswith(prefix.rstrip(".") + ".")


@dataclass(frozen=True)
class Recipe:
    """Everything but the data and the seed.

    Args:
        spec: what the finished model says of itself; divisor, reach and sha256 are filled in after training.
        network, arguments: what :func:`seglens.models.nets.build_network` is called with.
        augmentation: a key of :data:`seglens.training.augment.AUGMENTATIONS`.
        loss: a key of :data:`seglens.training.losses.LOSSES`, or a sum: ``cross-entropy + 0.5 focal``.
        truth: what the masks hold: ``instances`` (object numbers; anything but 0 is foreground) or ``classes``.
        measure: what validation chooses by: Dice of the ``foreground``, or the mean of the foreground ``classes``.
        zoom: range of random magnifications.
        border: width in pixels of the class ``border``, the inner rim of each object; 0 for no such class.
        crop: side of the training crops in pixels.
        batch: crops per step.
        steps: steps per epoch.
        epochs, rate: length and highest learning rate of a training of one phase.
        phases: several phases, one after the other; empty for one of ``epochs`` and ``rate``.
        decay: weight decay of AdamW.
        patience: a phase ends after so many epochs without a better validation; ``None`` for never.
        task: dotted path of a :class:`seglens.training.tasks.Task`: loss, validation and what follows a phase.
        options: plain data for the task.
        synthetic: the pictures are drawn by code, and no data folder is read.
    """

    spec: ModelSpec
    arguments: Mapping[str, Any]
    augmentation: str
    network: str = "unet"
    loss: str = "cross-entropy + dice"
    truth: Truth = "instances"
    measure: Measure = "foreground"
    zoom: tuple[float, float] = (0.6, 1.6)
    border: int = 2
    crop: int = 160
    batch: int = 8
    steps: int = 50
    epochs: int = 20
    rate: float = 3e-3
    phases: tuple[Phase, ...] = ()
    decay: float = 1e-2
    patience: int | None = None
    task: str = PLAIN
    options: Mapping[str, Any] = field(default_factory=dict)
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Refuse what nobody can train."""
        for name in ("crop", "batch", "steps", "epochs"):
            if getattr(self, name) < 1:
                raise BadParameter(f"{name} is {getattr(self, name)} in {self.spec.name}.", fix="Use 1 or more.")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise BadParameter(
                f"zoom is {self.zoom} in {self.spec.name}.", fix="Give the smaller number first: 0.6, 1.6."
            )
        if self.border and self.truth == "instances" and len(self.spec.classes) < 3:
            raise BadParameter(
                f"{self.spec.name} has a border of {self.border} px, and no class for it.",
                fix="Set border to 0, or name the classes background, object and border.",
            )

    def plan(self, epochs: int | None = None) -> tuple[Phase, ...]:
        """The phases; with ``epochs`` as long as that together, shared out as the recipe does, one each at least.

        Raises:
            BadParameter: fewer epochs than phases.
        """
        phases = self.phases or (Phase("training", self.epochs, self.rate),)
        usual = sum(phase.epochs for phase in phases)
        if epochs is None or epochs == usual:
            return phases
        if epochs < len(phases):
            one = f"the recipe has {len(phases)} phases of one epoch or more"
            raise BadParameter(
                f"epochs={epochs} is too short to train: {one}.",
                fix=f"Use {len(phases)} or more; the recipe's own length is {usual}.",
            )
        ends = [round(epochs * sum(p.epochs for p in phases[: i + 1]) / usual) for i in range(len(phases))]
        for i in range(len(phases)):
            ends[i] = max(ends[i], (ends[i - 1] if i else 0) + 1)
        for i in reversed(range(len(phases))):
            ends[i] = min(ends[i], epochs - (len(phases) - 1 - i))
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        return tuple(replace(phase, epochs=n) for phase, n in zip(phases, lengths, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def with_network(self, network: str) -> Recipe:
        """The recipe with another of our networks, in its usual size.

        Raises:
            UnknownName: there is no such network.
        """
        check_name(network)
        spec = self.spec
        arguments = {"in_channels": len(spec.channels), "out_channels": len(spec.classes), "dims": spec.ndim}
        return replace(self, network=network, arguments=arguments, rate=RATES.get(network, self.rate))


# The classes of recipes that find nuclei; the last one only where the recipe has a border.
NUCLEI = (
    ClassSpec("background", "#00000000"),
    ClassSpec("nucleus", "#26c6da"),
    ClassSpec("border", "#ffb300"),
)
