"""``seglens explain METHOD IMAGE``: a command per method, made from its declared parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from seglens.app.commands._options import (
    IMAGE,
    RUN,
    TARGET,
    Option,
    Sectioned,
    image_options,
    load,
    model_options,
    open_view,
    run_options,
    target,
    target_options,
    working,
)  # fmt: skip
from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Table
from seglens.core.files import read_labels
from seglens.core.method import Method
from seglens.core.param import Parameter
from seglens.core.saving import check_new, new_folder, save_explanation, save_table
from seglens.core.target import Predicted

PARAMETERS = "Parameters of the method"


class Methods(click.Group):
    """Methods as commands: listed without an import, made when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(METHODS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of a method.

        Raises:
            UnknownName: no such method; the fix names the nearest.
        """
        return _command(METHODS[cmd_name])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names by family; no method is imported for it."""
        families: dict[str, list[str]] = {}
        for name in METHODS:
            families.setdefault(METHODS.family_of(name), []).append(name)
        with formatter.section("Methods (`seglens explain METHOD --help` has its parameters)"):
            formatter.write_dl([(family, ", ".join(names)) for family, names in families.items()])


def _command(method: type[Method]) -> click.Command:
    common = [*target_options(), *model_options(), *image_options(), *run_options()]
    taken = {str(option.name) for option in common}
    return Sectioned(
        method.name,
        callback=partial(_run, method),
        help=f"{method.title}. {(method.__doc__ or '').strip()}",
        params=[click.Argument(["image"]), *(_option(p, taken) for p in method.parameters()), *common, *_further()],
    )


def _further() -> list[click.Parameter]:
    return [
        Option(
            ["--reference"], section=IMAGE, metavar="FILE", multiple=True,
            help="Another image, for a method that compares; more than one may be given. --crop is not for it.",
        ),
        Option(["--annotation"], section=TARGET, metavar="FILE", help="A labels image: units, or what a method needs."),
        Option(["--tile"], section=RUN, type=click.IntRange(min=8), metavar="N", help="Explain tiles of this side."),
        Option(
            ["--precision"], section=RUN, type=click.Choice(["full", "bf16"]), default="full", show_default=True,
            help="bf16 is a preview: faster, and logits move.",
        ),
        Option(["--each-object"], section=TARGET, is_flag=True, help="Every object of the class, for one run's work."),
        Option(["--compare-fills"], section=RUN, is_flag=True, help="Ask with every fill and show where they differ."),
    ]  # fmt: skip


def _option(parameter: Parameter, taken: set[str]) -> Option:
    """An option that takes a text; the method's own check words the errors."""
    flag = parameter.name.replace("_", "-")
    if parameter.name in taken:
        flag = f"method-{flag}"
    default = parameter.param.empty if parameter.default is None else parameter.default
    default = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
    unit = f" {parameter.param.unit}" if parameter.param.unit and parameter.default is not None else ""
    limits = parameter.limits + (f", {parameter.param.unit}" if parameter.param.unit else "")
    text = f"{parameter.param.help} [{limits}; default: {default}{unit}]"
    return Option([f"--{flag}", f"param_{parameter.name}"], section=PARAMETERS, help=text, metavar=_metavar(parameter))


def _metavar(parameter: Parameter) -> str:
    if parameter.param.source is not None:
        return {"layers": "LAYER", "classes": "CLASS"}[parameter.param.source]
    return {int: "N", float: "NUMBER", bool: "YES|NO", str: "NAME"}[parameter.type]


def _run(method: type[Method], image: str, **options: Any) -> None:
    given = {n.removeprefix("param_"): v for n, v in options.items() if n.startswith("param_") and v is not None}
    recipe = method.from_values(given)
    check_new(options["out"])
    picture = open_view(image, options)
    others = tuple(open_view(one, {**options, "crop": None}) for one in options["reference"])
    model = load(options)
    # late, because this brings torch
    from seglens.app.report.overview import overview
    from seglens.session import compare_fills, explain, segment

    wanted = target(options, picture.space(model.spec.axes))
    with working(options["seed"]) as run:
        run.precision = options["precision"]
        more = {
            "run": run,
            "tile": options["tile"],
            "reference": others,
            "annotation": _annotation(options["annotation"], picture.space(model.spec.axes)),
            "annotation_source": options["annotation"] or "",
        }
        if options["each_object"]:
            click.echo(_each(recipe, picture, model, wanted, options, more))
            return
        answer = (compare_fills if options["compare_fills"] else explain)(recipe, picture, model, wanted, **more)
        with new_folder(options["out"]) as out:
            save_explanation(answer, out, picture)
            overview(picture, segment(picture, model, run=run), [answer], out / "overview.png", model.spec)
    click.echo(_summary(method, answer))
    click.echo(f"Result: {out} (overview.png first)")


def _each(recipe: Method, picture: Any, model: Any, like: Any, options: dict[str, Any], more: dict[str, Any]) -> str:
    from seglens.session import each_object, explain_each

    if like.region != Predicted():
        raise BadParameter(
            "--each-object was given together with a region.", fix="Leave out --object, --region, --point and --box."
        )
    if options["compare_fills"]:
        raise BadParameter(
            "--each-object and --compare-fills were given together.",
            fix="Give one of them: compare fills of one object.",
        )
    targets = each_object(picture, model, like, run=more["run"], tile=more["tile"])
    answers = explain_each(recipe, picture, model, targets, **more)
    rows: dict[str, list[Any]] = {"object": [], "class": [], "pixels": [], "score": [], "answer": []}
    with new_folder(options["out"]) as out:
        for answer in answers:
            told: dict[str, Any] = answer.record.target if answer.record else {}
            number = told["region"]["number"]
            save_explanation(answer, out / f"object-{number:04d}", picture)
            resolved = told["resolved"]
            values = (number, resolved["class"], resolved["pixels"], resolved["score"], answer.text)
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
        save_table(out / "objects.csv", Table("objects", rows))
    return f"{recipe.title} of {len(targets)} objects, scored together. Result: {out} (objects.csv first)"


def _annotation(file: str | None, shape: tuple[int, ...]) -> Any:
    return None if file is None else read_labels(file, shape)


def _summary(method: type[Method], answer: Explanation) -> str:
    record = answer.record
    if record is None:
        return method.title
    resolved = record.target["resolved"]
    return (
        f"{method.title} of {resolved['class']}: {resolved['pixels']} pixels, {record.target['reduction']} "
        f"{record.target['value']} {resolved['score']:.4g}, {record.seconds:.1f} s on {record.device}."
    )


command = Methods(
    "explain",
    help="Explain what a model drew: METHOD says how, IMAGE is a file or sample:NAME.",
    subcommand_metavar="METHOD IMAGE [OPTIONS]",
)
