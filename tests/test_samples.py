"""The samples are what their script draws, open with what their tour needs, and show what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seglens.core.errors import ImageMismatch, UnknownName
from seglens.core.files import open_image
from seglens.sample_data import HERE, SAMPLES, open_sample, sample_layers

DRAWN = [name for name, info in SAMPLES.items() if not info.real]


def test_the_script_draws_the_very_same_bytes(tmp_path: Path) -> None:
    from seglens.sample_data import make

    written = {p.name: p.read_bytes() for p in make.write(tmp_path)}
    shipped = {p.name: p.read_bytes() for p in HERE.glob("*.tif")}
    assert written.keys() == shipped.keys()
    assert [name for name in shipped if written[name] != shipped[name]] == []


def test_they_are_small_and_stand_at_the_top() -> None:
    assert sum(p.stat().st_size for p in HERE.iterdir() if p.is_file()) < 1_500_000
    top = Path(__file__).parents[1] / "sample_data"
    assert top.resolve() == HERE.resolve()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_opens_with_its_layers(name: str) -> None:
    image = open_image(f"sample:{name}")
    assert (image.name, image.source) == (name, f"sample:{name}")
    assert image.read(image.axes).std() > 5
    layers = sample_layers(name)
    _, settings, kind = layers[0]
    assert (kind, settings["name"], len(layers)) == ("image", name, 1 + len(SAMPLES[name].extra))
    space = image.axes.removesuffix("C")
    for array, more, its_kind in layers:
        assert array.shape[: len(space)] == image.space(space)
        assert len(more["scale"]) == len(space)
        assert its_kind == "image" or array.dtype.kind == "u"
        assert "rgb" not in more or more["rgb"] == image.axes.endswith("C")


def test_sizes_of_pixels_are_kept() -> None:
    stack = open_sample("nuclei-zstack")
    assert stack.scale("ZYX") == pytest.approx((1.0, 0.4, 0.4))
    assert (stack.axes, open_sample("time-lapse").axes, open_sample("tissue-rgb").axes) == ("ZYX", "TYX", "YXC")
    assert all(open_sample(name).unit == "micrometer" for name in DRAWN)


def test_one_nucleus_is_out_of_focus_and_some_touch() -> None:
    image, truth = (data.astype(float) for data, _, _ in sample_layers("nuclei-2d"))
    sharp = np.hypot(*np.gradient(image))
    numbers = np.unique(truth)[1:]
    edge = [sharp[truth == n].mean() for n in numbers]
    assert int(np.argmin(edge)) == len(numbers) - 1
    beside = (truth[:, :-1] != truth[:, 1:]) & (truth[:, :-1] > 0) & (truth[:, 1:] > 0)
    assert beside.any()


def test_a_nucleus_divides() -> None:
    tracks = sample_layers("time-lapse")[1][0]
    before, after = set(np.unique(tracks[5])), set(np.unique(tracks[6]))
    assert len(before - after) == 1
    assert len(after - before) == 2


def test_the_shortcut_is_the_ring() -> None:
    image, truth, rings, moved = (data for data, _, _ in sample_layers("shortcut"))
    assert set(np.unique(truth)) == {0, 1, 2}
    assert image[rings > 0].max() > image[truth > 0].max()
    assert not (rings[truth > 0]).any()
    # the very same cells, and rings only where they were moved
    assert np.array_equal(image[truth > 0], moved[truth > 0])
    assert moved[rings > 0].max() < image[rings > 0].max()


def test_unknown_samples_and_missing_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName) as caught:
        open_image("sample:nuclei-3d")
    assert "nuclei-2d" in caught.value.fix
    from skimage import data

    def offline() -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(data, "retina", offline, raising=False)
    with pytest.raises(ImageMismatch) as missing:
        open_sample("retina")
    assert "no network" in missing.value.what


def test_samples_bring_no_torch() -> None:
    code = (
        "import sys; from seglens import open_image; open_image('sample:nuclei-2d'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
