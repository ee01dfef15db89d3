"""Groups of images: what must not stand on both sides of a comparison (a slide, a patient, a file)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, overload

from seglens.core.errors import BadParameter
from seglens.core.files import SAMPLE

RULES = ("file", "folder")


@overload
def group_of(source: str, rule: str, *, strict: Literal[True] = True) -> str: ...
@overload
def group_of(source: str, rule: str, *, strict: bool) -> str | None: ...


def group_of(source: str, rule: str, *, strict: bool = True) -> str | None:
    """The group of an image.

    Args:
        source: its path, ``sample:NAME``, or its name where it never was a file.
        rule: ``file`` (each file by itself: folder and name), ``folder`` (the name of its folder), or a regular
            expression that is looked for in the whole path; its first bracket, or all of it, is the group.
        strict: whether an expression that does not fit is an error; else ``None`` is answered.

    Raises:
        BadParameter: the expression is none, or does not fit.
    """
    path = source
    if not source.startswith(SAMPLE) and (Path(source).name != source or Path(source).exists()):
        path = Path(source).expanduser().absolute().as_posix()
    parts = path.split("/")
    if rule == "file":
        return "/".join(parts[-2:])
    if rule == "folder":
        return parts[-2] if len(parts) > 1 else parts[0]
    try:
        found = re.search(rule, path)
    except re.error as error:
        raise BadParameter(
            f"The group {rule!r} is not a regular expression: {error}.",
            fix=r"Use file, folder, or an expression such as 'patient_(\d+)'.",
        ) from error
    if found is None:
        if not strict:
            return None
        raise BadParameter(
            f"The group {rule!r} does not fit {path}.",
            fix=r"Use file, folder, or an expression that fits every path, such as 'patient_(\d+)'.",
        )
    return found.group(1) if found.re.groups and found.group(1) is not None else found.group(0)
