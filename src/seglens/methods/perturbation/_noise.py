"""The U-Noise pair: a small network that learns where noise may lie, its loss and its training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.boxes import Box
from seglens.core.boxes import whole as all_of
from seglens.core.errors import Cancelled
from seglens.core.method import Artefact
from seglens.engine import optimise
from seglens.engine.artefacts import Store
from seglens.engine.case import Case
from seglens.engine.fast import arranged, layout
from seglens.engine.target import FrozenTarget
from seglens.models.intake import check_fits, fit_intake, read_plain
from seglens.models.nets.unet import UNet

Smooth = Callable[[Tensor, Tensor], Tensor]

MEASURED = 8  # batches over which the norms are measured at the end
KEEP = 30.0  # seconds between two checkpoints
CROPS = {2: 128, 3: 32}  # side of a training crop
CPU = torch.device("cpu")


def noise_net(channels: int, features: Sequence[int], dims: int, seed: int, device: torch.device = CPU) -> UNet:
    """A U-Net with these channels per level, drawn by a seed; it starts with B = ½ everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet(channels, 1, features, dims)
    with torch.no_grad():
        # so that what is seen later has been learnt, and is no texture of the first draw
        for parameter in net.head.parameters():
            parameter.zero_()
    return net.to(device, memory_format=layout(device, dims + 2))  # type: ignore[call-overload,no-any-return]


def noise_logits(net: UNet, x: Tensor) -> Tensor:
    """N(x) of any size, (N, C, *space) to (N, 1, *space); sizes are padded to the divisor by repeating the edge."""
    space = tuple(x.shape[2:])
    margins = [n for size in space[::-1] for n in (0, -size % net.divisor)]
    out: Tensor = net(arranged(F.pad(x, margins, mode="replicate") if any(margins) else x))
    return out[(slice(None), slice(None), *(slice(0, n) for n in space))]


@dataclass(frozen=True)
class NoiseLoss:
    """What is minimised: the utility's loss under noise, plus λ for every pixel that tolerates less.

    Args:
        sigma_min, sigma_max: noise at B = 0 and B = 1, in deviations of the image.
        weight: λ.
        smooth: of (B, x): a further term, a number; ``None`` for none.
    """

    sigma_min: float
    sigma_max: float
    weight: float
    smooth: Smooth | None = None

    def sigma(self, b: Tensor) -> Tensor:
        """Deviation of the noise where the network answers B."""
        return b * (self.sigma_max - self.sigma_min) + self.sigma_min

    def __call__(self, n: Tensor, x: Tensor, draw: Tensor, unit: Tensor, utility: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss, a number.

        Args:
            n: logits of B (N, 1, *space).
            x: clean input (N, C, *space).
            draw: ε, of the input's shape.
            unit: deviation of the image, broadcasting to the input.
            utility: loss of the noisy input, a number.
        """
        b = torch.sigmoid(n)
        total = utility(x + draw * self.sigma(b) * unit) - self.weight * F.logsigmoid(n).mean()
        return total if self.smooth is None else total + self.smooth(b, x / unit)


def kept(case: Case, x: Tensor, y: Tensor, w: Tensor, target: FrozenTarget) -> Tensor:
    """Cross-entropy of the target's class against the rest, (number), where ``w`` counts.

    Args:
        case: whose frozen model answers.
        x: input (N, C, *space).
        y, w: 1 where the class should be, and what counts, both (N, *space).
        target: tells the class.
    """
    logits = optimise.logits(case.model, x, case.run)
    whole = logits.logsumexp(1)
    rest = torch.cat([logits[:, : target.index], logits[:, target.index + 1 :]], 1).logsumexp(1)
    cross = y * (whole - logits[:, target.index]) + (1 - y) * (whole - rest)
    return (cross * w).sum() / w.sum().clamp(min=1)


def edges(tau: float) -> Smooth:
    """Differences of B between neighbours, less where the image has an edge: both directions count, per pixel."""

    def term(b: Tensor, x: Tensor) -> Tensor:
        total = b.new_zeros(())
        for axis in range(2, b.ndim):
            alike = torch.exp(-(x.diff(dim=axis) ** 2).sum(1, keepdim=True) / tau)
            total = total + 2 * (alike * b.diff(dim=axis).abs()).sum()
        return total / b.numel()

    return term


def variation(b: Tensor, x: Tensor) -> Tensor:
    """Total variation of B: the same without a look at the image."""
    return torch.stack([2 * b.diff(dim=axis).abs().sum() for axis in range(2, b.ndim)]).sum() / b.numel()


@dataclass(frozen=True, eq=False)
class Lesson:
    """A picture to train on, all on the model's device.

    Args:
        x: input (C, *space).
        y: where the class should be, and ``w``: what counts, both (*space).
        unit: deviation per channel, (C, 1, …).
        focus: pixels (n, D) of which each crop holds one.
    """

    x: Tensor
    y: Tensor
    w: Tensor
    unit: Tensor
    focus: Tensor


def lessons(case: Case, whole: bool) -> list[Lesson]:
    """The question's image, then the references, with the model's own answer; an annotation takes its place.

    Args:
        case: the question.
        whole: everything counts; else the target's region, and only its field is looked at. In references everything
            counts.
    """
    target, box = case.target, extent(case, whole)
    y = target.drawn(case.logits)[0]
    if case.annotation is not None:
        y = torch.from_numpy(np.asarray(case.annotation) != 0).to(case.x.device)
    w = torch.ones_like(target.weights) if whole else (target.weights != 0).float()
    made = [_lesson(case.x[0][(slice(None), *box)], y[box].float(), w[box])]
    for image in case.reference:
        check_fits(image, case.model.spec)
        pixels = fit_intake(image, case.model.spec).to_input(read_plain(image, case.model.spec))
        x = torch.from_numpy(pixels).to(case.x)
        y = target.drawn(case.forward(x.unsqueeze(0)))[0].float().clone()
        made.append(_lesson(x, y, torch.ones_like(y)))
    return made


def extent(case: Case, whole: bool) -> Box:
    """Where noise can matter: everywhere, or the field of the target."""
    return all_of(case.shape) if whole else case.field


def _lesson(x: Tensor, y: Tensor, w: Tensor) -> Lesson:
    unit = x.flatten(1).std(1).clamp(min=1e-6).reshape(-1, *[1] * (x.ndim - 1))
    return Lesson(x, y, w, unit, w.nonzero())


@dataclass(frozen=True, eq=False)
class Training:
    """How a noise net is trained.

    Args:
        case: the question; its model stays frozen.
        lessons: what to train on.
        loss: what is minimised.
        features: channels per level of the noise net.
        steps, rate, batch: of Adam.
        crop: side of a crop; smaller images are taken whole.
        flips: mirror crops at random.
    """

    case: Case
    lessons: Sequence[Lesson]
    loss: NoiseLoss
    features: Sequence[int]
    steps: int
    rate: float
    batch: int
    crop: int
    flips: bool

    def run(self, store: Store, seen: Callable[[UNet, list[float]], None]) -> Artefact:
        """Train, or go on with what was interrupted; a checkpoint is left when it is cancelled, and twice a minute.

        Every step draws from a seed of its own, so a training that was interrupted ends in the same weights.

        Args:
            store: where the checkpoint lives.
            seen: looks at the net and the losses so far, after each step.

        Returns:
            The weights ``net.…``; data: ``losses`` per step, ``blind``: noise never changed the utility's loss.
        """
        first, device = self.lessons[0], self.case.x.device
        net = noise_net(first.x.shape[0], self.features, first.y.ndim, self.case.run.seed, device)
        adam = torch.optim.Adam(net.parameters(), lr=self.rate)
        felt = [False]
        losses: list[float] = []
        left = store.checkpoint()
        if left is not None:
            _restore(left, net, adam)
            losses, felt[0] = left.data["losses"], not left.data["blind"]
            self.case.run.note(f"The training goes on at step {len(losses) + 1}, where it was interrupted.")
        before: dict[str, Tensor] = {}  # running means, while a step is under way
        walk = optimise.descend(
            self.case, adam, lambda a, b: self._loss(net, len(losses), felt, before), steps=self.steps,
            start=len(losses), text="training steps",
        )  # fmt: skip
        kept_at = time.monotonic()
        try:
            for step in walk:
                if time.monotonic() - kept_at > KEEP:
                    store.save_checkpoint(_state(net, adam, losses, felt, before))
                    kept_at = time.monotonic()
                losses.append(float(step.losses[0]))
                before.clear()
                seen(net, losses)
        except Cancelled:
            store.save_checkpoint(_state(net, adam, losses, felt, before))
            raise
        self._measure(net)
        return Artefact(_weights(net), {"losses": losses, "blind": not felt[0]})

    def _measure(self, net: UNet) -> None:
        """Means and deviations of the norms as the finished weights make them: running ones lag behind."""
        norms = [
            module for module in net.train().modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        ]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean of what follows
        with torch.no_grad():
            for number in range(MEASURED):
                lesson, generator = self._drawn(self.steps + number)
                self.case.run.check()
                noise_logits(net, torch.stack([crop[0] for crop in self._crops(lesson, generator)]))

    def _drawn(self, number: int) -> tuple[Lesson, torch.Generator]:
        generator = torch.Generator().manual_seed(hash((self.case.run.seed, number)) % 2**63)
        return self.lessons[int(torch.randint(len(self.lessons), (), generator=generator))], generator

    def _loss(self, net: UNet, number: int, felt: list[bool], before: dict[str, Tensor]) -> Tensor:
        before.update({name: value.clone() for name, value in net.train().named_buffers()})
        lesson, generator = self._drawn(number)
        x, y, w = (torch.stack(part) for part in zip(*self._crops(lesson, generator), strict=True))
        draw = torch.randn(x.shape, generator=generator).to(x)

        def feel(gradient: Tensor) -> None:
            felt[0] = felt[0] or bool(gradient.any())

        def utility(noisy: Tensor) -> Tensor:
            lost = kept(self.case, noisy, y, w, self.case.target)
            if lost.requires_grad:
                noisy.register_hook(feel)  # type: ignore[no-untyped-call]
            return lost

        return self.loss(noise_logits(net, x), x, draw, lesson.unit, utility).reshape(1)

    def _crops(self, lesson: Lesson, generator: torch.Generator) -> list[list[Tensor]]:
        def pick(n: int) -> int:
            return int(torch.randint(n, (), generator=generator))

        crops = []
        for _ in range(self.batch):
            at = lesson.focus[pick(len(lesson.focus))].tolist()
            box = []
            for place, size in zip(at, lesson.y.shape, strict=True):
                side = min(self.crop, size)
                low, high = max(0, place - side + 1), min(place, size - side)
                start = low + pick(high - low + 1)
                box.append(slice(start, start + side))
            parts = [lesson.x[(slice(None), *box)], lesson.y[tuple(box)], lesson.w[tuple(box)]]
            over = [-1 - axis for axis in range(lesson.y.ndim) if self.flips and pick(2)]
            crops.append([part.flip(over) for part in parts])
        return crops


def load_net(artefact: Artefact, channels: int, features: Sequence[int], dims: int, device: torch.device = CPU) -> UNet:
    """The trained noise net of an artefact, in eval mode."""
    net = noise_net(channels, features, dims, 0, device)
    net.load_state_dict({k.removeprefix("net."): torch.from_numpy(v.copy()) for k, v in artefact.arrays.items()})
    return net.eval()


def _weights(net: UNet) -> dict[str, np.ndarray[Any, Any]]:
    return {f"net.{name}": value.detach().cpu().numpy().copy() for name, value in net.state_dict().items()}


def _state(
    net: UNet, adam: torch.optim.Adam, losses: list[float], felt: list[bool], before: dict[str, Tensor]
) -> Artefact:
    """A checkpoint after the steps whose losses are known; a step under way is undone."""
    arrays = _weights(net) | {f"net.{name}": value.cpu().numpy().copy() for name, value in before.items()}
    for number, state in adam.state_dict()["state"].items():
        arrays |= {f"adam.{number}.{k}": v.detach().cpu().numpy().copy() for k, v in state.items()}
    return Artefact(arrays, {"losses": losses, "blind": not felt[0]})


def _restore(left: Artefact, net: UNet, adam: torch.optim.Adam) -> None:
    arrays = {name: torch.from_numpy(array.copy()) for name, array in left.arrays.items()}
    net.load_state_dict({k.removeprefix("net."): v for k, v in arrays.items() if k.startswith("net.")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in arrays.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            states.setdefault(int(number), {})[key] = value
    adam.load_state_dict(adam.state_dict() | {"state": states})


def everything(case: Case) -> bool:
    """Whether the target is all that the model calls its class, and no smaller region."""
    own = case.target.drawn(case.logits)[0]
    return bool(torch.equal(case.target.weights != 0, own))
