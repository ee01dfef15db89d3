"""The demo: a real image, one nucleus and one class explained; as pictures, and in a viewer where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from seglens.app.commands._options import working
from seglens.app.report.overview import overview
from seglens.core.errors import MissingNeed, NoSuchRegion
from seglens.core.explanation import Explanation
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.saving import RECORD
from seglens.core.target import Object, Target
from seglens.models.loaders import load_model
from seglens.models.segmentation import SegmentationModel
from seglens.session import Segmentation, explain, segment

IMAGE = "sample:immunohistochemistry"
MODEL = "nuclei-histology"
# What is asked of one nucleus; the class is asked with a coarse window, for speed.
OF_ONE: Mapping[str, Mapping[str, Any]] = {
    "vanilla-gradient": {},
    "region-replacement": {"dilate": 2},
    "seg-grad-cam": {},
}
OF_CLASS: Mapping[str, Mapping[str, Any]] = {"occlusion": {"window": 64, "stride": 32}}
OVERVIEW, VIEWER = "overview.png", "viewer.png"
_INSIDE = "SEGLENS_DEMO_UNDER_XVFB"
_ROUND = 0.65
_PLUGIN = "seglens.app.napari.demo"


def run_demo(*, headless: bool, out: Path) -> Path:
    """Segment, explain, draw, and show.

    Files of an earlier demo in the folder are replaced.

    Args:
        headless: only write pictures and the record.
        out: folder for ``overview.png``, ``record.json`` and, without a display, ``viewer.png``.

    Returns:
        The folder.

    Raises:
        MissingNeed: the viewer does not start.
    """
    inside = bool(os.environ.get(_INSIDE))
    virtual = shutil.which("xvfb-run")
    if not (headless or inside or has_display()) and virtual and _has_plugin():
        return _under_xvfb(virtual, out)
    out.mkdir(parents=True, exist_ok=True)
    image, made, answers, model = _work()
    overview(image, made, answers, out / OVERVIEW, model.spec)
    records = [answer.record.to_dict() for answer in answers if answer.record is not None]
    (out / RECORD).write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for answer in answers:
        click.echo(answer.text)
    click.echo(f"Written: {out / OVERVIEW}, {out / RECORD}")
    if not headless:
        _show(image, made, answers, out / VIEWER if inside else None)
    return out


def well_visible(objects: NDArray[np.int32], labels: NDArray[np.uint8], index: int) -> tuple[int, int]:
    """A pixel inside a nucleus that is easy to see: fairly large, round, whole, and nearest to the centre.

    Args:
        objects: numbered components (Y, X).
        labels: class per pixel.
        index: the class that is wanted.

    Raises:
        NoSuchRegion: there is none.
    """
    from scipy import ndimage

    mine = np.where(labels == index, objects, 0)
    sizes = np.bincount(mine.ravel())
    sizes[0] = 0
    rim = np.unique(np.concatenate([mine[0], mine[-1], mine[:, 0], mine[:, -1]]))
    sizes[rim] = 0
    if not sizes.any():
        raise NoSuchRegion("The model finds no whole nucleus in this image.", fix="Choose another image or model.")
    present = sizes[sizes > 0]
    low, high = np.percentile(present, 60, method="lower"), np.percentile(present, 95, method="higher")
    good = np.flatnonzero((sizes >= low) & (sizes <= high))
    depth = ndimage.distance_transform_edt(mine > 0)
    # How round: the deepest pixel against the radius of a disc of the same size. Two that touch are not round.
    roundness = np.asarray(ndimage.maximum(depth, mine, good)) / np.sqrt(sizes[good] / np.pi)
    good = good[roundness >= min(_ROUND, roundness.max())]
    centres = np.asarray(ndimage.center_of_mass(mine > 0, mine, good))
    away = np.linalg.norm(centres - np.asarray(mine.shape) / 2, axis=1)
    number = int(good[int(away.argmin())])
    # The deepest pixel lies inside even where the shape is bent.
    y, x = np.unravel_index(int(np.argmax(np.where(mine == number, depth, 0))), mine.shape)
    return int(y), int(x)


def _work() -> tuple[Image, Segmentation, list[Explanation], SegmentationModel]:
    image, model = open_image(IMAGE), load_model(MODEL)
    with working(0) as run:
        made = segment(image, model, run=run)
        at = well_visible(made.objects(), np.asarray(made.labels), 1)
        one, whole = Target("nucleus", Object(at=at)), Target("nucleus")
        answers = [explain(m, image, model, one, run=_fresh(run), **given) for m, given in OF_ONE.items()]
        answers += [explain(m, image, model, whole, run=_fresh(run), **given) for m, given in OF_CLASS.items()]
    return image, made, answers, model


def _fresh(run: Run) -> Run:
    """The same seed and listeners; the cost is counted anew."""
    return Run(seed=run.seed, on_progress=run.on_progress, on_note=run.on_note)


def _show(image: Image, made: Segmentation, answers: list[Explanation], screenshot: Path | None) -> None:
    """The viewer, where there is one and a screen for it; else a sentence that says what is missing."""
    if not _has_plugin():
        click.echo("The viewer part of SegLens is not installed here; the pictures above are the demo.", err=True)
    elif has_display():
        from seglens.app.napari.demo import show_demo

        show_demo(image, made, answers, screenshot=screenshot)
    else:
        click.echo(
            "No screen was found: run this with one, or install xvfb (Debian: apt install xvfb) for a picture of "
            "the viewer.",
            err=True,
        )


def _has_plugin() -> bool:
    return importlib.util.find_spec(_PLUGIN) is not None


def has_display(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether windows can be opened here."""
    if platform in ("darwin", "win32"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _under_xvfb(virtual: str, out: Path) -> Path:
    """Do all of it in a second process with a virtual screen, and picture the viewer there."""
    screen = [virtual, "-a", "-s", "-screen 0 1600x1000x24"]
    command = [*screen, sys.executable, "-m", "seglens", "demo", "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, _INSIDE: "1"}, check=False)
    if done.returncode or not (out / VIEWER).is_file():
        raise MissingNeed(
            "The viewer did not start under Xvfb; its last words stand above.",
            fix="Install Qt's system packages (Debian: apt install libegl1 libxkbcommon-x11-0 libxcb-cursor0), "
            "or run `seglens demo --headless`.",
        )
    click.echo(f"No screen here, so the viewer was pictured under Xvfb: {out / VIEWER}")
    return out
