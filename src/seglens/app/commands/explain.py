"""``seglens explain METHOD IMAGE``: a command per method, made from its declared parameters."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import click

from seglens.app.commands._options import (
    IMAGE,
    MODEL,
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
    tell,
    working,
)  # fmt: skip
from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Table
from seglens.core.files import read_labels
from seglens.core.method import Method
from seglens.core.param import Parameter
from seglens.core.plural import plural
from seglens.core.rerun import flag
from seglens.core.run import Precision
from seglens.core.saving import check_new, new_folder, save_explanation, save_record, save_table
from seglens.core.target import Predicted

PARAMETERS = "Parameters of the method"
ITS_OWN = {"weights": None, "network": None}  # what is said of one model alone


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
    return Sectioned(
        method.name,
        callback=partial(_run, method),
        help=f"{method.title}. {(method.__doc__ or '').strip()}",
        params=[click.Argument(["image"]), *map(_option, method.parameters()), *common, *_further()],
    )


def _further() -> list[click.Parameter]:
    return [
        Option(
            ["--reference"], section=IMAGE, metavar="FILE", multiple=True,
            help="Another image, for a method that compares; more than one may be given. --crop is not for it.",
        ),
        Option(
            ["--second-model"], section=MODEL, metavar="M",
            help="Another model, for a method that compares two; --weights and --network are not for it.",
        ),
        Option(
            ["--bank"], section=IMAGE, metavar="DIR",
            help="A feature bank of `seglens gallery bank`, for a method that looks examples up.",
        ),
        Option(["--annotation"], section=TARGET, metavar="FILE", help="A labels image: units, or what a method needs."),
        Option(["--tile"], section=RUN, type=click.IntRange(min=8), metavar="N", help="Explain tiles of this side."),
        Option(
            ["--precision"], section=RUN, type=click.Choice(get_args(Precision)), default="full", show_default=True,
            help="bf16 and fp16 are previews: faster, and logits move.",
        ),
        Option(["--each-object"], section=TARGET, is_flag=True, help="Every object of the class, often in one run."),
        Option(["--compare-fills"], section=RUN, is_flag=True, help="Ask with every fill and show where they differ."),
        Option(["--all-depths"], section=RUN, is_flag=True, help="Ask at one layer for each depth of the network."),
        Option(["--all-layers"], section=RUN, is_flag=True, help="Ask at every layer that answers a map."),
    ]  # fmt: skip


def _option(parameter: Parameter) -> Option:
    """An option that takes a text; the method's own check words the errors."""
    default = parameter.param.empty if parameter.default is None else parameter.default
    default = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
    unit = f" {parameter.param.unit}" if parameter.param.unit and parameter.default is not None else ""
    limits = parameter.limits + (f", {parameter.param.unit}" if parameter.param.unit else "")
    text = f"{parameter.param.help} [{limits}; default: {default}{unit}]"
    named = [flag(parameter.name), f"param_{parameter.name}"]
    return Option(named, section=PARAMETERS, help=text, metavar=_metavar(parameter))


def _metavar(parameter: Parameter) -> str:
    if parameter.param.source is not None:
        return {"layers": "LAYER", "classes": "CLASS"}[parameter.param.source]
    return {int: "N", float: "NUMBER", bool: "YES|NO", str: "NAME"}[parameter.type]


def _run(method: type[Method], image: str, **options: Any) -> None:
    given = {n.removeprefix("param_"): v for n, v in options.items() if n.startswith("param_") and v is not None}
    recipe = method.from_values(given)
    _check_together(options)
    check_new(options["out"])
    picture = open_view(image, options)
    others = tuple(open_view(one, {**options, "crop": None}) for one in options["reference"])
    model = load(options)
    second = options["second_model"] and load({**options, "model": options["second_model"], **ITS_OWN})
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
        if second:
            more |= {"second_model": second}
        if options["bank"]:
            more |= {"bank": options["bank"]}
        if options["each_object"]:
            click.echo(_each(recipe, picture, model, wanted, options, more))
            return
        if options["all_depths"] or options["all_layers"]:
            click.echo(_strip(recipe, picture, model, wanted, options, more))
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
    targets = each_object(picture, model, like, run=more["run"], tile=more["tile"])
    answers = explain_each(recipe, picture, model, targets, **more)
    numbers = [one.describe()["region"]["number"] for one in targets]
    more["run"].on_note = lambda text: tell(f"object {numbers[len(rows['object'])]}: {text}")
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
    return f"{recipe.title} of {plural(len(targets), 'object')}, scored together. Result: {out} (objects.csv first)"


def _strip(recipe: Method, picture: Any, model: Any, wanted: Any, options: dict[str, Any], more: dict[str, Any]) -> str:
    from seglens.app.report.overview import overview
    from seglens.session import segment
    from seglens.session_layers import Which, explain_layers, layers_of, parameter_of, strip_record

    at: Which = "all" if options["all_layers"] else "depths"
    del more["tile"]
    name = parameter_of(recipe)
    if recipe.values()[name] is not None:
        every = "--all-layers" if options["all_layers"] else "--all-depths"
        raise BadParameter(
            f"{flag(name)} {recipe.values()[name]} was given with {every}, which asks at one layer after another.",
            fix=f"Leave out {flag(name)} or {every}.",
        )
    known = {info.name: info for info in layers_of(model, at)}
    rows: dict[str, list[Any]] = {"layer": [], "channels": [], "stride": [], "map": [], "largest": [], "answer": []}
    answers = []
    with new_folder(options["out"]) as out:
        for number, answer in enumerate(explain_layers(recipe, picture, model, wanted, at=at, **more), 1):
            layer = str(answer.record.parameters[name]) if answer.record else ""
            save_explanation(answer, out / f"{number:02d}-{layer.replace('.', '-')}", picture)
            info, own = known[layer], answer.map.resolution or answer.map.data.shape
            size = "×".join(map(str, own))
            values = (layer, info.channels, info.stride, size, float(abs(answer.map.data).max()), answer.text)
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
            answers.append(answer)
        save_table(out / "layers.csv", Table("layers", rows))
        if answers[0].record is not None:
            save_record(strip_record(answers[0].record, recipe, at), out)
        overview(picture, segment(picture, model, run=more["run"]), answers, out / "overview.png", model.spec)
    return f"{recipe.title} at {plural(len(answers), 'layer')}. Result: {out} (overview.png first)"


def _check_together(options: dict[str, Any]) -> None:
    given = [
        f"--{n.replace('_', '-')}" for n in ("each_object", "compare_fills", "all_depths", "all_layers") if options[n]
    ]
    for alone in ("second_model", "bank"):
        if given and options[alone] and not (alone == "bank" and options["each_object"]):
            raise BadParameter(f"{given[0]} was given with --{alone.replace('_', '-')}.", fix="Give one of them.")
    if len(given) > 1:
        raise BadParameter(f"{' and '.join(given)} were given together.", fix="Give one of them.")
    if options["tile"] is not None and (options["all_depths"] or options["all_layers"]):
        raise BadParameter(
            f"{given[0]} was given with --tile: in tiles a network has no layers.", fix="Leave out --tile."
        )


def _annotation(file: str | None, shape: tuple[int, ...]) -> Any:
    return None if file is None else read_labels(file, shape)


def _summary(method: type[Method], answer: Explanation) -> str:
    record = answer.record
    if record is None:
        return method.title
    resolved = record.target["resolved"]
    return (
        f"{method.title} of {resolved['class']}: {plural(resolved['pixels'], 'pixel')}, {record.target['reduction']} "
        f"{record.target['value']} {resolved['score']:.4g}, {record.seconds:.1f} s on {record.device}."
    )


command = Methods(
    "explain",
    help="Explain what a model drew: METHOD says how, IMAGE is a file or sample:NAME.",
    subcommand_metavar="METHOD IMAGE [OPTIONS]",
)
