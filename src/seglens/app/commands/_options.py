"""Options that commands share, and what their texts mean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from seglens.core.errors import BadParameter
from seglens.core.files import open_image, read_mask
from seglens.core.image import Image
from seglens.core.plural import plural
from seglens.core.run import Run
from seglens.core.target import Border, Box, Object, Painted, Point, Predicted, Reduction, Region, Target, Value

if TYPE_CHECKING:
    from seglens.models.segmentation import SegmentationModel

F = TypeVar("F", bound=Callable[..., Any])

IMAGE = "Image"
MODEL = "Model"
TARGET = "What is explained"
RUN = "Run"


class Option(click.Option):
    """An option that stands under a heading in the help."""

    def __init__(self, *names: Any, section: str = RUN, **settings: Any) -> None:
        """As click's, with the heading."""
        self.section = section
        super().__init__(*names, **settings)


class Sectioned(click.Command):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Headings in the order of the options; help itself comes last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            line = param.get_help_record(ctx)
            if line is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", RUN), []).append(line)
        for title, lines in sections.items():
            with formatter.section(title):
                formatter.write_dl(lines)


def image_options() -> list[click.Parameter]:
    """Which part of an image file, and what its axes are."""
    return [
        _option("--axes", IMAGE, "One letter of TCZYX per axis, where the file does not tell.", metavar="AXES"),
        _option("--channels", IMAGE, "Channels to use, in order: 0,1,2.", metavar="N,N,…"),
        _option("--select", IMAGE, "One position along an axis: T=0,Z=3.", metavar="AXIS=N,…", multiple=True),
        _option("--crop", IMAGE, "Only a box: Y=100:300,X=0:200.", metavar="AXIS=A:B,…"),
    ]


def model_options() -> list[click.Parameter]:
    """Which model, where, and whether it may run code."""
    return [
        _option(
            "--model",
            MODEL,
            "A name of `seglens models`, a file, a folder, or net.py:build.",
            metavar="M",
            required=True,
        ),
        _option("--weights", MODEL, "Weights for net.py:build or a folder without.", type=_path(), metavar="FILE"),
        _option("--network", MODEL, "Network of a weights file: unet, monai:BasicUNet, …", metavar="NAME"),
        _option("--trust", MODEL, "Allow this model file to run code; asked once per file.", is_flag=True),
        _option("--device", MODEL, "auto, cpu, cuda, cuda:1 or mps.", default="auto", show_default=True, metavar="D"),
    ]


def target_options() -> list[click.Parameter]:
    """Class, region, value and reduction."""
    values, reductions = click.Choice(get_args(Value)), click.Choice(get_args(Reduction))
    default = Target()
    return [
        _option("--class", TARGET, "Name or number; the predicted one by default.", dest="of_class", metavar="CLASS"),
        _option("--live", TARGET, "Follow the class as it moves under changes (not advised).", is_flag=True),
        _option("--region", TARGET, "An image file with the painted region.", type=_path(), metavar="MASK"),
        _option("--point", TARGET, "One pixel.", metavar="Y,X"),
        _option("--object", TARGET, "One object, by its number in objects.tif.", type=int, metavar="N"),
        _option("--object-at", TARGET, "The object at a pixel.", metavar="Y,X"),
        _option("--box", TARGET, "The class inside a box.", metavar="Y,X:Y,X"),
        _option("--whole-box", TARGET, "All pixels of the box, not only those of the class.", is_flag=True),
        _option("--border", TARGET, "The rim of the region, this wide.", type=int, metavar="PIXELS"),
        _option("--value", TARGET, "What is read.", type=values, default=default.value, show_default=True),
        _option(
            "--reduction", TARGET, "Over the pixels.", type=reductions, default=default.reduction, show_default=True
        ),
    ]


def run_options() -> list[click.Parameter]:
    """Seed and output."""
    return [
        _option("--seed", RUN, "Seed of every random draw.", type=int, default=0, show_default=True, metavar="N"),
        _option("--out", RUN, "New folder for the results.", type=_path(), required=True, metavar="DIR"),
    ]


def view(image: Image, *, channels: str | None, select: Iterable[str], crop: str | None) -> Image:
    """The part of an image that the options name.

    Raises:
        BadParameter: a text that cannot be understood.
        ImageMismatch: no such axis, position or channel.
    """
    for axis, text in _pairs("--select", ",".join(select), "T=0,Z=3"):
        image = image.select(**{axis: _whole("--select", text, "T=0,Z=3")})
    parts = {}
    for axis, text in _pairs("--crop", crop or "", "Y=100:300"):
        start, _, stop = text.partition(":")
        parts[axis] = slice(_whole("--crop", start, "Y=100:300"), _whole("--crop", stop, "Y=100:300"))
    image = image.crop(**parts) if parts else image
    return image.with_channels(_numbers("--channels", channels, "0,1,2")) if channels else image


def open_view(source: str, options: dict[str, Any]) -> Image:
    """Open an image and take the part that the options name."""
    image = open_image(source, axes=options["axes"])
    return view(image, channels=options["channels"], select=options["select"], crop=options["crop"])


def load(options: dict[str, Any]) -> SegmentationModel:
    """Load the model that the options name."""
    # late: torch is imported with the first model
    from seglens.models.loaders import load_model
    from seglens.models.trust import Trust

    trust = Trust.always() if options["trust"] else Trust.never()
    names = ("weights", "network", "device")
    return load_model(options["model"], trust=trust, **{n: options[n] for n in names})


def target(options: dict[str, Any], shape: tuple[int, ...]) -> Target:
    """What the options ask to be explained.

    Args:
        options: the values of :func:`target_options`.
        shape: the space that a mask has to fit.

    Raises:
        BadParameter: two regions at once, or a text that cannot be understood.
        ImageMismatch, NoSuchRegion: the mask cannot be read, does not fit, or is empty.
    """
    region: Region = _region(options, shape)
    if options["border"] is not None:
        if options["border"] < 1 or isinstance(region, Point | Border):
            raise BadParameter(
                f"--border {options['border']} cannot be drawn here.",
                fix="Give a width of 1 or more, with --region, --object, --box or the whole class.",
            )
        region = Border(region, options["border"])
    return Target(options["of_class"], region, options["value"], options["reduction"])


def _region(options: dict[str, Any], shape: tuple[int, ...]) -> Region:
    given = [name for name in ("region", "point", "object", "object_at", "box") if options[name] is not None]
    if len(given) > 1:
        words = " and ".join("--" + name.replace("_", "-") for name in given)
        raise BadParameter(f"{words} were given together.", fix="Give one of them: a run explains one region.")
    if options["whole_box"] and given != ["box"]:
        raise BadParameter("--whole-box was given without --box.", fix="Add --box Y,X:Y,X, or leave it out.")
    if not given:
        return Predicted(options["live"])
    value = options[given[0]]
    match given[0]:
        case "region":
            return Painted(read_mask(value, shape), str(value))
        case "point":
            return Point(_place("--point", value, shape))
        case "object":
            return Object(value)
        case "object_at":
            return Object(at=_place("--object-at", value, shape))
        case _:
            start, _, stop = value.partition(":")
            if not stop:
                low, high = (",".join(str(n // k) for n in shape) for k in (4, 2))
                raise BadParameter(f"--box {value} names one corner.", fix=f"Write it like --box {low}:{high}.")
            return Box(_place("--box", start, shape), _place("--box", stop, shape), not options["whole_box"])


@contextmanager
def working(seed: int) -> Iterator[Run]:
    """A run whose progress is shown on a terminal, and whose notes are told."""
    bar = _Bar() if sys.stderr.isatty() else None
    try:
        yield Run(seed=seed, on_progress=bar.move if bar else None, on_note=tell)
    finally:
        if bar is not None:
            bar.close()


def tell(text: str) -> None:
    """Show a note on the terminal."""
    click.echo(f"Note: {text}", err=True)


class _Bar:
    """A tqdm bar that starts again with every new piece of work."""

    def __init__(self) -> None:
        """Nothing is drawn before the first step."""
        self._bar: Any = None
        self._what = ("", 0)

    def move(self, done: int, total: int, text: str) -> None:
        """Show how far the work is."""
        if self._bar is None or self._what != (text, total):
            from tqdm import tqdm

            self.close()
            # what was done before this bar tells nothing of its speed
            self._bar = tqdm(total=total, initial=done, desc=text, leave=False, file=sys.stderr)
            self._what = (text, total)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _option(name: str, section: str, text: str, *, dest: str | None = None, **settings: Any) -> Option:
    return Option([name] if dest is None else [name, dest], section=section, help=text, **settings)


def _path() -> click.Path:
    return click.Path(path_type=Path)


def _pairs(option: str, text: str, example: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, text.split(",")):
        axis, equals, value = part.partition("=")
        if not equals or axis.strip().upper() not in tuple("TCZYX"):
            raise BadParameter(f"{option} {text} cannot be understood.", fix=f"Write it like {option} {example}.")
        pairs.append((axis.strip().upper(), value.strip()))
    return pairs


def _numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    return tuple(_whole(option, part, example) for part in text.split(","))


def _place(option: str, text: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    example = ",".join(str(n // 2) for n in shape)
    place = _numbers(option, text, example)
    if len(place) != len(shape):
        raise BadParameter(
            f"{option} {text} has {plural(len(place), 'number')}, the image has {plural(len(shape), 'axis', 'axes')}.",
            fix=f"Write it like {option} {example} (in the order of the axes).",
        )
    return place


def _whole(option: str, text: str, example: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadParameter(
            f"{option}: {text!r} is not a whole number.", fix=f"Write it like {option} {example}."
        ) from None
