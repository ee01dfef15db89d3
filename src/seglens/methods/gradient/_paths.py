"""What methods share that take gradients at many copies: their loop, running means, where paths start, what is left."""

from typing import Annotated, Any, Literal, Protocol

import torch
from torch import Tensor

from seglens.core.boxes import Box, at_box
from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.explanation import Explanation, Table
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.param import FillName, Param
from seglens.engine import infill
from seglens.engine.case import Case
from seglens.engine.perturb import Perturbations
from seglens.engine.sampled import Sampled
from seglens.models.intake import fit_intake, read_plain

DRAWS = 10  # starting images, of a fill that is drawn at random
RANDOM = ("noise", "permutation")
MISSED = 0.05  # of what is to be explained: more than that is said
ROUNDING = 1e-5  # of the scores
EARLY = 0.1  # the start of a path, on which not half of everything should happen

Start = Annotated[
    FillName,
    Param(
        "Image that the path starts from, as if all pixels were covered: the mean of the image or of all but the "
        "region, blurred, noise, shuffled, one grey level, or 0 in the network's own input. Reference images take its "
        "place."
    ),
]
Points = Annotated[int, Param("Points of the path at which the gradient is taken.", ge=2, le=5000, quick=8)]
Rule = Annotated[
    Literal["gauss-legendre", "midpoint"],
    Param("Where the points lie: for smooth functions, or in the middles of equal steps."),
]
Spread = Annotated[
    float, Param("Deviation of the noise, as a share of the range of the input's values.", ge=0, le=1, step=0.05)
]


class Course(Protocol):
    """What is known while gradients come in."""

    @property
    def done(self) -> bool:
        """Whether it is enough: no further gradient is taken then."""

    def feed(self, made: Sampled) -> None:
        """Take in some gradients."""


class SampledGradients(Method):
    """A method that takes the target's gradient at copies of the image and reads its answer from these."""

    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})

    def copies(self, case: Case) -> Perturbations:
        """Where gradients are taken; the same whenever asked."""
        raise NotImplementedError

    def course(self, case: Case, copies: Any) -> Course:
        """What takes them in."""
        raise NotImplementedError

    def answer(self, case: Case, course: Any) -> Explanation:
        """The answer from what is known; asked on the way, too."""
        raise NotImplementedError

    def passes(self, case: Case) -> tuple[float, int]:
        """What all copies take."""
        return case.sampler.passes(len(self.copies(case)))

    def run(self, case: Case) -> Explanation:
        """Take gradients until there are enough."""
        copies = self.copies(case)
        course = self.course(case, copies)
        for made in case.gradient_steps(copies, "copies"):
            course.feed(made)
            if course.done:
                break
            case.run.partial(lambda: self.answer(case, course))
        return self.answer(case, course)


def placed(case: Case, values: Tensor, box: Box) -> Tensor:
    """Values of a box (C, *box) in those of the image (1, C, *space), zero around it, on the CPU."""
    out = torch.zeros(case.x.shape)
    out[at_box(box)] = values.float().cpu()
    return out


def start(case: Case, fill: FillName) -> Tensor:
    """The one image where a path starts (1, C, *space): the reference image if there is one, else the fill.

    Raises:
        BadParameter: a fill that depends on what is covered.
    """
    return starts(case, fill) if case.reference else _other(case, case.fill(fill), fill)


def start_named(case: Case, fill: str) -> str:
    """What that image is, in words; what they are, if there are several references."""
    if len(case.reference) > 1:
        return f"{len(case.reference)} reference images"
    return f"the reference image {case.reference[0].name}" if case.reference else f"the image filled by {fill}"


def starts_named(case: Case, fill: str) -> str:
    """What the images of :func:`starts` are, in words."""
    drawn = not case.reference and fill in RANDOM
    return f"{DRAWS} images filled by {fill}" if drawn else start_named(case, fill)


def starts(case: Case, fill: FillName) -> Tensor:
    """Images where paths start (B, C, *space): the references if there are any, else the fill; several if it is random.

    Raises:
        BadParameter: a fill that depends on what is covered.
    """
    if case.reference:
        spec = case.model.spec
        inputs = [fit_intake(one, spec).to_input(read_plain(one, spec)) for one in case.reference]
        return _other(case, torch.stack([torch.from_numpy(one) for one in inputs]).to(case.x), fill)
    first = case.fill(fill)
    if fill not in RANDOM:
        return _other(case, first, fill)
    draw = case.generator()
    more = [infill.fill(fill, case.x, case.intake, generator=draw) for _ in range(DRAWS)]
    return torch.cat(more)


def _other(case: Case, made: Tensor, fill: str) -> Tensor:
    """The same images (B, C, *space); if there is none but the image itself, that is said."""
    if torch.equal(made, case.x):
        case.run.note(f"The image is compared with itself ({start_named(case, fill)}), so all of the map is zero.")
    return made


def check_references(case: Case) -> None:
    """Raise ImageMismatch if a reference image cannot stand in for the image, pixel by pixel."""
    for one in case.reference:
        size = one.space(case.model.spec.axes)
        if size != case.shape:
            here, there = ("×".join(map(str, shape)) for shape in (case.shape, size))
            raise ImageMismatch(
                f"Paths start at the reference images, and {one.name} has {there} pixels, the image {here}.",
                fix="Choose reference images of that size; for a part of an image, save the same part of a reference.",
            )


def check_start(case: Case, fill: FillName | None) -> None:
    """Raise what is wrong with the one image where a path starts.

    Raises:
        BadParameter: several reference images, or a fill that depends on what is covered.
        ImageMismatch: a reference of another size.
    """
    if len(case.reference) > 1:
        raise BadParameter(
            f"There is one image to compare with, and {len(case.reference)} reference images were given.",
            fix="Give one --reference, or choose gradient-shap or deep-lift-shap, which take the mean over many.",
        )
    check_references(case)
    if fill is not None:
        start(case, fill)


def completeness(case: Case, total: float, start: float, where: str) -> tuple[Table, str]:
    """What a map adds up to, beside the change of the score that it should explain.

    Args:
        case: the question.
        total: sum of the map.
        start: the target's number where the path starts, or the mean of these.
        where: what is there, in words.
    """
    change = case.clean_score - start
    gap = total - change
    part = gap / change if change else 0.0
    table = Table(
        "completeness",
        {
            "quantity": ["score", f"score of {where}", "difference", "sum of the map", "gap", "gap / difference"],
            "value": [case.clean_score, start, change, total, gap, part],
        },
    )
    text = f"The map adds up to {total:.4g} of {change:.4g} (from {where} to the image): gap {gap:+.2g}, {part:+.1%}."
    return table, text


def warn(case: Case, total: float, start: float, path: list[tuple[float, float]], fill: str) -> None:
    """Say when a map adds up to something else than the change of the score, and why.

    Args:
        case: the question.
        total: sum of the map.
        start: the score where the path starts.
        path: how far along it the points lie, from 0 to 1, and the score there; from the start on.
        fill: what the path starts from.
    """
    change, what = case.clean_score - start, missed(case, total, start)
    if not what:
        return
    early = [(at, (score - start) / change) for at, score in path if 0 < at <= EARLY and change]
    if early and abs(early[-1][1]) > 0.5 and case.sees_everywhere:
        at, part = early[-1]
        case.run.note(
            f"{what} {part:.0%} of the change happens in the first {at:.1%} of the path: the network evens out "
            "contrast, as instance norm does, and more steps hardly help. Start from an image that is not of one "
            f"colour, such as {' or '.join(f'fill={other}' for other in ('blur', 'noise') if other != fill)}."
        )
    else:
        case.run.note(f"{what} Take more steps, or start from another fill.")


def missed(case: Case, total: float, start: float) -> str:
    """That a map adds up to something else than the change of the score, as a sentence; empty if it adds up."""
    change = case.clean_score - start
    if abs(total - change) <= MISSED * abs(change) + ROUNDING * (abs(case.clean_score) + abs(start)):
        return ""
    return f"The map adds up to {total:.3g}, where {change:.3g} is to be explained: do not read it as shares."


def warn_of_rules(case: Case, total: float, start: float) -> None:
    """The same of a map made by rules, of which more steps would be no help."""
    if told := missed(case, total, start):
        case.run.note(f"{told} Choose another baseline, or a method without rules, such as integrated-gradients.")
