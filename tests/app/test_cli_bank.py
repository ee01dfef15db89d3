"""``seglens gallery bank``: from files to a bank, with what fails told, and gone on with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tifffile import imwrite

from seglens.app.cli import main
from seglens.core.files import open_image
from seglens.engine.features import FeatureBank


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two crops of a sample, and a file that is no image."""
    pixels = open_image("sample:shortcut").read("YX")
    for name, part in {"patient_1": pixels[:96, :96], "patient_2": pixels[-96:, -96:]}.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        imwrite(tmp_path / "images" / name / f"{name}.tif", part)
        (tmp_path / "masks").mkdir(exist_ok=True)
        imwrite(tmp_path / "masks" / f"{name}.tif", np.ones(part.shape, np.uint8))
    return tmp_path / "images"


def call(images: Path, out: Path, *more: str, model: str = "shortcut-synthetic"):
    folders = [str(p) for p in sorted(images.iterdir())]
    return CliRunner().invoke(main, ["gallery", "bank", *folders, "--model", model, "--out", str(out), *more])


def test_a_bank_of_folders_with_groups_and_masks(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.bank"
    result = call(images, out, "--group", r"patient_(\d)", "--masks", str(tmp_path / "masks"), "--masks-are", "classes")
    assert result.exit_code == 0, result.output
    bank = FeatureBank.open(out)
    assert f"{len(bank)} object embeddings of 2 images in 2 groups" in result.output
    assert bank.groups() == ("1", "2")
    assert {e.truth for e in bank.entries(range(len(bank)))} == {"healthy"}
    assert Path(bank.images()[0].source).is_absolute()
    bank.close()
    again = call(images, out, "--group", r"patient_(\d)", "--masks", str(tmp_path / "masks"), "--masks-are", "classes")
    assert again.output == result.output
    other = call(images, out, "--kind", "pixel")
    assert other.exit_code == 2
    assert "begun with other settings" in other.output


def test_an_image_that_fails_is_told_and_the_rest_is_there(images: Path, tmp_path: Path) -> None:
    (images / "patient_1" / "broken.tif").write_bytes(b"no image")
    result = call(images, tmp_path / "b", "--kind", "pixel", "--per-image", "30", "--class", "infected")
    assert result.exit_code == 2
    assert "1 image was left out" in result.output
    assert "broken.tif" in result.output
    bank = FeatureBank.open(tmp_path / "b")
    assert len(bank.images()) == 2
    assert {e.predicted for e in bank.entries(range(len(bank)))} == {"infected"}
    bank.close()
    imwrite(images / "patient_1" / "broken.tif", open_image("sample:shortcut").read("YX")[40:140, 40:140])
    again = call(images, tmp_path / "b", "--kind", "pixel", "--per-image", "30", "--class", "infected")
    assert again.exit_code == 0, again.output
    assert "of 3 images" in again.output


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--layer", "nowhere"], "There is no layer called 'nowhere'"),
        (["--group", "slide_("], "not a regular expression"),
        (["--masks", "/nowhere"], "no folder of masks"),
        (["--kind", "object", "--side", "9"], "side=9"),
    ],
)
def test_what_is_wrong_is_said_in_two_sentences(images: Path, tmp_path: Path, more: list[str], told: str) -> None:
    result = call(images, tmp_path / "b", *more)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("words", [["gallery", "--help"], ["gallery", "bank", "--help"]])
def test_its_help_imports_no_torch(words: list[str]) -> None:
    code = f"from seglens.app.cli import main; main({words}, standalone_mode=False)"
    check = "; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code + check], check=True, timeout=60, stdout=subprocess.DEVNULL)
