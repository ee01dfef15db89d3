"""A record as a command line or as Python, so that what a person saw can be run again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from os import PathLike
from pathlib import Path
from typing import Any

from seglens.core.errors import BadParameter
from seglens.core.explanation import Record
from seglens.core.saving import RECORD

PLACE = "IMAGE"
NESTED = ("parameters", "target", "model", "image")  # entries of a record that have entries of their own

Recorded = Record | Mapping[str, Any] | str | PathLike[str]

# Options of `seglens explain` that are its own, as parameters would name them: a parameter of such a name gets the
# prefix that `flag` gives it.
RESERVED = frozenset({
    "of_class", "class", "live", "region", "point", "object", "object_at", "box", "whole_box", "border", "value",
    "reduction", "model", "weights", "network", "second_model", "trust", "device", "axes", "channels", "select", "crop",
    "reference", "annotation", "seed", "out", "tile", "precision", "each_object", "compare_fills", "all_depths",
    "all_layers", "bank",
})  # fmt: skip


def flag(parameter: str) -> str:
    """The option that sets a parameter of a method, such as ``--window``."""
    return f"--{'method-' if parameter in RESERVED else ''}{parameter.replace('_', '-')}"


def as_cli(record: Recorded, *, out: str = "explanation") -> str:
    """The command that gives the same result.

    Args:
        record: the record of an explanation, the same as JSON has it, or the path of ``record.json`` or its folder.
        out: folder named in the command.

    Returns:
        One line; an image that never was a file stands as ``IMAGE``, a mask that never was as ``MASK``. So does a
        reference that was read in another way than the image, which the command cannot say.

    Raises:
        BadParameter: that is no record.
    """
    record = read_record(record)
    image = record.image
    words = ["seglens", "explain", record.method, image.get("source") or PLACE, "--model", record.model["source"]]
    for name, value in record.model.get("options", {}).items():
        words += [f"--{name}", value]
    if image.get("axes"):
        words += ["--axes", image["axes"]]
    for option, value in (("--select", image.get("select")), ("--crop", image.get("crop"))):
        if value:
            words += [option, ",".join(f"{axis}={part}" for axis, part in value.items())]
    if image.get("channels"):
        words += ["--channels", ",".join(map(str, image["channels"]))]
    words += _target_words(record.target)
    for name, value in record.parameters.items():
        if value is not None:
            words += [flag(name), str(value).lower() if isinstance(value, bool) else str(value)]
    for name, value in record.asked.items():
        if name == "reference":
            words += [word for one in value for word in ("--reference", _read_like(one, image))]
        else:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    words += ["--seed", str(record.seed), "--out", out]
    return shlex.join(words)


def as_python(record: Recorded) -> str:
    """A short script that gives the same result.

    Args:
        record: as :func:`as_cli` takes it.

    Raises:
        BadParameter: that is no record.
    """
    record = read_record(record)
    image = record.image
    steps = [f"image = seglens.open_image({image.get('source') or PLACE!r}{_axes(image)})"]
    if image.get("select"):
        steps.append(f"image = image.select(**{image['select']!r})")
    if image.get("crop"):
        steps.append(f"image = image.crop({_parts(image['crop'])})")
    if image.get("channels"):
        steps.append(f"image = image.with_channels({tuple(image['channels'])!r})")
    given = "".join(f", {name}={value!r}" for name, value in record.parameters.items() if value is not None)
    question = (
        f"seglens.{_question(record)}({record.method!r}, image, model, target, "
        f"run=seglens.Run(seed={record.seed}{_precision(record)}){_asked(record)}{given})"
    )
    steps += [
        f"model = seglens.load_model({record.model['source']!r}{_options(record.model)})",
        f"target = {_target_code(record.target)}",
    ]
    if _depths(record):
        steps += [f"for explanation in {question}:", "    print(explanation.text)"]
    else:
        steps += [f"explanation = {question}", "print(explanation.text)"]
    return "\n".join(["import seglens", "", *steps, ""])


def as_json(record: Record) -> str:
    """The record as text."""
    return json.dumps(record.to_dict(), indent=2, default=str)


def read_record(given: Recorded) -> Record:
    """A record, from one, from what :meth:`Record.to_dict` or JSON made of it, or from a file or its folder.

    Raises:
        BadParameter: that is no record, or there is none.
    """
    if isinstance(given, Record):
        return given
    if isinstance(given, str | PathLike):
        return _from_file(Path(given).expanduser())
    return _from_data(given)


def _from_data(given: Any) -> Record:
    if not isinstance(given, Mapping):
        many = f" of {len(given)}" if isinstance(given, list) else ""
        raise BadParameter(
            f"A {type(given).__name__}{many} is no record of an explanation.",
            fix=f"Give answer.record, what json.load reads of one {RECORD}, or the path of that file.",
        )
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(Record)}
    wrong = [f"{name} is missing" for name, needed in known.items() if needed and name not in given]
    wrong += [f"{name} is unknown" for name in given if name not in known]
    wrong += [f"{name} is no table" for name in NESTED if name in given and not isinstance(given[name], Mapping)]
    if wrong:
        raise BadParameter(
            f"This is no record of an explanation: {', '.join(wrong)}.",
            fix=f"Give all that {RECORD} holds, as `seglens explain` wrote it.",
        )
    return Record.from_dict(dict(given))


def _from_file(path: Path) -> Record:
    file = path / RECORD if path.is_dir() else path
    if not file.is_file():
        inside = sorted(one.parent for one in path.glob(f"*/{RECORD}"))
        many = f"one of the folders in it, such as {inside[0]}" if inside else f"the path of a {RECORD}, or its folder"
        raise BadParameter(f"There is no record at {file}.", fix=f"Give {many}.")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadParameter(
            f"{file} cannot be read: {error}.", fix=f"Give a {RECORD} that `seglens explain` wrote."
        ) from error
    return _from_data(held)


def _options(model: dict[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in model.get("options", {}).items())


def _question(record: Record) -> str:
    if _depths(record):
        return "explain_layers"
    return "compare_fills" if record.asked.get("compare-fills") else "explain"


def _depths(record: Record) -> str:
    """Through which layers a run goes; empty for one that answers once."""
    return "all" if "all-layers" in record.asked else "depths" if "all-depths" in record.asked else ""


def _precision(record: Record) -> str:
    return f", precision={record.asked['precision']!r}" if "precision" in record.asked else ""


def _asked(record: Record) -> str:
    words = f", tile={record.asked['tile']}" if "tile" in record.asked else ""
    words += f", at={_depths(record)!r}" if _depths(record) else ""
    if "annotation" in record.asked:
        words += f", annotation=seglens.read_labels({record.asked['annotation']!r})"
    if "second-model" in record.asked:
        words += f", second_model=seglens.load_model({record.asked['second-model']!r})"
    if "bank" in record.asked:
        words += f", bank={record.asked['bank']!r}"
    if "reference" in record.asked:
        words += f", reference=({', '.join(map(_opened, record.asked['reference']))},)"
    return words


def _opened(image: dict[str, Any]) -> str:
    """An image with its view, in one expression."""
    code = f"seglens.open_image({image.get('source') or PLACE!r}{_axes(image)})"
    if image.get("select"):
        code += f".select(**{image['select']!r})"
    if image.get("crop"):
        code += f".crop({_parts(image['crop'])})"
    return code + (f".with_channels({tuple(image['channels'])!r})" if image.get("channels") else "")


def _read_like(one: dict[str, Any], image: dict[str, Any]) -> str:
    """Where a reference comes from; the options of the image are its own, but for the crop."""
    same = all(one.get(name) == image.get(name) for name in ("axes", "select", "channels"))
    return str(one.get("source") or PLACE) if same and not one.get("crop") else PLACE


def _parts(crop: dict[str, str]) -> str:
    return ", ".join(f"{a}=slice({p.replace(':', ', ')})" for a, p in crop.items())


def _axes(image: dict[str, Any]) -> str:
    return f", axes={image['axes']!r}" if image.get("axes") else ""


def _target_words(target: dict[str, Any]) -> list[str]:
    words = [] if target["class"] is None else ["--class", str(target["class"])]
    region = target["region"]
    if region["kind"] == "border":
        words += ["--border", str(region["width"])]
        region = region["of"]
    match region["kind"]:
        case "painted":
            words += ["--region", region.get("source") or "MASK"]
        case "predicted" if region.get("live"):
            words += ["--live"]
        case "point":
            words += ["--point", _comma(region["at"])]
        case "object" if region["number"] is not None:
            words += ["--object", str(region["number"])]
        case "object":
            words += ["--object-at", _comma(region["at"])]
        case "box":
            words += ["--box", f"{_comma(region['start'])}:{_comma(region['stop'])}"]
            words += [] if region["predicted_only"] else ["--whole-box"]
    return [*words, "--value", target["value"], "--reduction", target["reduction"]]


def _target_code(target: dict[str, Any]) -> str:
    region = _region_code(target["region"])
    return (
        f"seglens.Target({target['class']!r}, {region}, value={target['value']!r}, reduction={target['reduction']!r})"
    )


def _region_code(region: dict[str, Any]) -> str:
    match region["kind"]:
        case "painted":
            source = region.get("source") or "MASK"
            return f"seglens.Painted(seglens.read_mask({source!r}), {source!r})"
        case "point":
            return f"seglens.Point({tuple(region['at'])!r})"
        case "object" if region["number"] is not None:
            return f"seglens.Object({region['number']})"
        case "object":
            return f"seglens.Object(at={tuple(region['at'])!r})"
        case "box":
            return f"seglens.Box({tuple(region['start'])}, {tuple(region['stop'])}, {region['predicted_only']})"
        case "border":
            return f"seglens.Border({_region_code(region['of'])}, {region['width']})"
        case _:
            return f"seglens.Predicted({region['live']})"


def _comma(numbers: Any) -> str:
    return ",".join(map(str, numbers))
