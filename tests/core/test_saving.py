"""What is saved can be read back: values, axes, pixel size, record; nothing half-written stays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from seglens.core import saving, writing
from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.explanation import Explanation, Figure, Layer, Record, Table
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.saving import load_explanation, new_folder, save_explanation, save_segmentation

RNG = np.random.default_rng(0)
FLAT = Image(RNG.random((20, 30)), "YX", {"Y": 0.5, "X": 0.25}, "micrometer", "cells")
DEEP = Image(RNG.random((4, 20, 30)), "ZYX", {"Z": 2.0, "Y": 0.5, "X": 0.5}, "micrometer", "stack")
RECORD = Record(
    method="occlusion",
    parameters={"window": np.int64(4)},
    target={"class": "cell", "region": {"kind": "predicted"}},
    model={"name": "m"},
    image={"name": "cells"},
    seed=3,
    versions={"seglens": "0"},
    device="cpu",
    cost={"forwards": 9, "backwards": 0},
    seconds=0.5,
)


def explanation() -> Explanation:
    """One of everything."""
    layers = (
        Layer("Saliency", "signed", RNG.normal(size=(20, 30)), "change of logit"),
        Layer("Heat map", "heat", RNG.random((10, 12), np.float32), offset=(5, 6)),
        Layer("Heat map", "heat", RNG.random((20, 30)).astype(np.float16)),
        Layer("Superpixels", "labels", np.arange(600).reshape(20, 30)),
        Layer("Edited", "image", RNG.integers(0, 255, (20, 30, 3), np.uint8), rgb=True),
        Layer("Channels", "image", RNG.random((20, 30, 2), np.float32)),
        Layer("Corners", "points", RNG.random((5, 2)).astype(np.float32)),
        Layer("Flow", "vectors", RNG.random((5, 2, 2)).astype(np.float32)),
    )
    tables = (
        Table("Scores", {"object": [1, 2], "drop": [0.25, -1.5], "note": ["a", "b, c"]}),
        Table("None", {"a": []}),
    )
    figures = (Figure("Deletion curve", "line", [0, 1], {"score": [1.0, 0.5]}, "pixels", "logit"),)
    return Explanation(layers, tables, figures, "The model looks at the rim.", RECORD)


def test_an_explanation_comes_back(tmp_path: Path) -> None:
    before = explanation()
    folder = save_explanation(before, tmp_path / "out", FLAT)
    after = load_explanation(folder)
    assert [(x.name, x.kind, x.unit, x.rgb, x.offset) for x in after.layers] == [
        (x.name, x.kind, x.unit, x.rgb, x.offset) for x in before.layers
    ]
    for one, other in zip(before.layers, after.layers, strict=True):
        np.testing.assert_allclose(other.data, one.data, rtol=1e-6)
    assert {t.name: t.columns for t in after.tables} == {t.name: t.columns for t in before.tables}
    assert (after.figures, after.text) == (before.figures, before.text)
    assert after.record is not None
    assert after.record.to_dict() == json.loads(json.dumps(RECORD.to_dict(), default=int))


def test_a_low_resolution_map_says_so_and_keeps_saying_it(tmp_path: Path) -> None:
    data = RNG.random((20, 30)).astype(np.float32)
    answer = Explanation((Layer("low", "heat", data, resolution=(5, 8)), Layer("full", "heat", data)))
    assert [layer.enlarged() for layer in answer.layers] == ["5×8 map shown at 20×30", ""]
    assert Layer("same", "heat", data, resolution=(20, 30)).enlarged() == ""
    again = load_explanation(save_explanation(answer, tmp_path / "out", FLAT))
    assert [layer.resolution for layer in again.layers] == [(5, 8), ()]


def test_layers_keep_axes_and_pixel_size(tmp_path: Path) -> None:
    heat = Explanation((Layer("Saliency", "heat", RNG.random((4, 20, 30), np.float32)),))
    image = open_image(save_explanation(heat, tmp_path / "out", DEEP) / "saliency.ome.tif")
    assert (image.axes, image.unit, image.scale("ZYX")) == ("ZYX", "micrometer", (2.0, 0.5, 0.5))
    assert np.array_equal(image.read("ZYX"), heat.layers[0].data)


def test_colours_are_colours_for_other_programs(tmp_path: Path) -> None:
    folder = save_explanation(explanation(), tmp_path / "out", FLAT)
    with tifffile.TiffFile(folder / "edited.ome.tif") as tif:
        assert tif.pages[0].photometric.name == "RGB"
        assert tif.is_ome


def test_big_layers_become_ome_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "write_image", _small_limit)
    heat = Explanation((Layer("Saliency", "heat", RNG.random((4, 20, 30), np.float32)),))
    folder = save_explanation(heat, tmp_path / "out", DEEP)
    image = open_image(folder / "saliency.ome.zarr")
    assert (image.axes, image.unit, image.scale("ZYX")) == ("ZYX", "micrometer", (2.0, 0.5, 0.5))
    assert np.array_equal(load_explanation(folder).layers[0].data, heat.layers[0].data)


def _small_limit(*args: Any, **kwargs: Any) -> Path:
    return writing.write_image(*args, **kwargs, big=100)


@dataclass
class Parts:
    """A segmentation for tests."""

    labels: Any
    entropy: Any
    probabilities: Any
    axes: str = "ZYX"

    def objects(self) -> Any:
        """Numbers."""
        return self.labels.astype(np.int32) * 70_000


def test_a_segmentation_comes_back(tmp_path: Path) -> None:
    parts = Parts(
        RNG.integers(0, 3, (4, 20, 30), np.uint8), RNG.random((4, 20, 30), np.float32), RNG.random((3, 4, 20, 30))
    )
    folder = save_segmentation(parts, tmp_path / "out", DEEP)
    assert sorted(p.name for p in folder.iterdir()) == ["entropy.tif", "labels.tif", "objects.tif", "probabilities.tif"]
    for name, data in {"labels": parts.labels, "entropy": parts.entropy, "objects": parts.objects()}.items():
        image = open_image(folder / f"{name}.tif")
        assert (image.axes, image.scale("ZYX"), image.dtype) == ("ZYX", (2.0, 0.5, 0.5), data.dtype)
        assert np.array_equal(image.read("ZYX"), data)
    assert np.allclose(open_image(folder / "probabilities.tif").read("CZYX"), parts.probabilities)
    parts.probabilities = None
    assert len(list(save_segmentation(parts, tmp_path / "less", DEEP).iterdir())) == 3


def test_a_full_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(BadParameter) as caught:
        save_explanation(explanation(), tmp_path / "out", FLAT)
    assert "out-2" in caught.value.fix
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(BadParameter, match="is a file"), new_folder(tmp_path / "out" / "mine.txt"):
        pass


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_half_written_stays(tmp_path: Path, existed: bool, error: type[BaseException]) -> None:
    out = tmp_path / "out"
    if existed:
        out.mkdir()

    def half() -> None:
        with new_folder(out) as folder:
            (folder / "half.txt").write_text("x")
            raise error

    with pytest.raises(error):
        half()
    assert out.exists() == existed
    assert not existed or not any(out.iterdir())


def test_no_explanation_there(tmp_path: Path) -> None:
    with pytest.raises(ImageMismatch, match="holds no explanation"):
        load_explanation(tmp_path)
