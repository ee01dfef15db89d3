"""Runs as text that really runs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from viewer_help import blobs, make_model

from seglens.app.napari import copying
from seglens.app.napari.viewer_session import Made
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.target import Border, Painted, Predicted, Target
from seglens.session import explain

FACTORY = """
import torch
from torch import nn

class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.constant_(self.features.weight, 1 / 9)

    def forward(self, x):
        score = 20 * (self.features(x) - 0.5)
        return torch.cat([torch.zeros_like(score), score], 1)

def build():
    return Bright()
"""


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    (tmp_path / "net.json").write_text(
        '{"axes": "YX", "channels": ["grey"], "classes": ["background", "cell"], "normalisation": {"kind": "none"}}'
    )
    return f"{path}:build"


def asked(region, image):
    """An explanation, as the viewer keeps it."""
    answer = explain("vanilla-gradient", image, make_model(), Target("cell", region))
    return Made(answer.record.to_dict(), image, region)


def test_an_image_of_a_file_is_named(tmp_path):
    np.save(tmp_path / "cells.npy", blobs(40, 50))
    image = open_image(tmp_path / "cells.npy").crop(Y=slice(5, 35), X=slice(0, 50))
    told = copying.as_text(asked(Predicted(), image), "cli")
    assert str(tmp_path / "cells.npy") in told
    assert "--crop Y=5:35" in told
    assert not (tmp_path / "home" / "copied").exists()


def test_an_image_in_memory_is_written_with_axes_and_pixel_size(tmp_path):
    image = Image(blobs(3, 40, 50), "ZYX", {"Y": 0.5, "X": 0.5}, "micrometer").select(Z=1).crop(Y=slice(2, 30))
    made = asked(Predicted(), image)
    told = copying.as_text(made, "python")
    (file,) = (tmp_path / "home" / "copied").glob("image-*.tif")
    assert str(file) in told
    assert "select" not in told
    again = open_image(file)
    np.testing.assert_array_equal(again.read("YX"), image.read("YX"))
    assert again.scale("YX") == (0.5, 0.5)
    # the record of the layer itself is left as it was
    assert made.record["image"]["source"] == ""
    # asked twice, written once
    copying.as_text(made, "cli")
    assert len(list(file.parent.iterdir())) == 1


@pytest.mark.parametrize("border", [False, True])
def test_a_painted_region_is_written_with_its_sign(tmp_path, border):
    mask = np.zeros((40, 50), np.int8)
    mask[15:25, 18:30], mask[2:6, 2:6] = 1, -1
    region = Border(Painted(mask), 2) if border else Painted(mask)
    told = copying.as_text(asked(region, Image(blobs(40, 50), "YX")), "cli")
    (file,) = (tmp_path / "home" / "copied").glob("target-*.npy")
    assert f"--region {file}" in told
    np.testing.assert_array_equal(np.load(file), mask)


def test_the_copied_python_gives_the_same_map(tmp_path, model_file):
    mask = np.zeros((40, 50), np.int8)
    mask[15:25, 18:30] = 1
    image = Image(blobs(3, 40, 50), "ZYX", name="stack").select(Z=1)
    made = asked(Painted(mask), image)
    made.record["model"]["source"] = model_file
    told = copying.as_text(made, "python").replace("import seglens", _TRUST) + (
        f"\nimport numpy as np; np.save({str(tmp_path / 'map.npy')!r}, explanation.map.data)\n"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    expected = explain("vanilla-gradient", image, make_model(), Target("cell", Painted(mask))).map.data
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), expected, atol=1e-6)


def test_the_copied_command_runs(tmp_path, model_file):
    mask = np.zeros((40, 50), np.int8)
    mask[15:25, 18:30] = 1
    made = asked(Painted(mask), Image(blobs(40, 50), "YX"))
    made.record["model"]["source"] = model_file
    told = copying.as_text(made, "cli") + " --trust"
    done = subprocess.run(
        f"{sys.executable} -m seglens {told.removeprefix('seglens ')}",
        shell=True, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "explanation" / "record.json").is_file()


def test_a_segmentation_is_told_too(tmp_path):
    view = Image(blobs(3, 40, 50), "ZYX", name="stack").select(Z=2)
    made = Made(copying.segment_record([view], make_model(), 64, 0), view)
    cli, python = copying.as_text(made, "cli"), copying.as_text(made, "python")
    (file,) = (tmp_path / "home" / "copied").glob("image-*.tif")
    assert cli.startswith(f"seglens segment {file} --model bright")
    assert "--tile 64 --halo 0" in cli
    assert "seglens.segment(image, model, tile=64, halo=0)" in python
    compile(python, "copied", "exec")


_TRUST = """
import seglens
from seglens.models.trust import Trust
import seglens.models.loaders as loaders
_load = loaders.load_model
seglens.load_model = lambda source: _load(source, trust=Trust.always())
"""
