"""The picture for a slide: drawn for flat, deep and coloured images, and honest about scale and range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as Pillow

from hand import Deep, wrap
from seglens.app.report import overview as overview_module
from seglens.app.report import panels, planes
from seglens.app.report.overview import overview
from seglens.app.report.planes import Plane, choose_plane, colours, full_map, zoom
from seglens.app.report.targets import region_of, told
from seglens.core.explanation import Explanation, Layer
from seglens.core.image import Image
from seglens.core.target import Border, Object, Painted, Point, Target
from seglens.models.nets.unet import UNet
from seglens.session import Segmentation, explain, segment

RNG = np.random.default_rng(0)


def picture(shape: tuple[int, ...], axes: str) -> Image:
    """A smooth picture with a pixel size."""
    from scipy import ndimage

    data = ndimage.gaussian_filter(RNG.normal(size=shape), 3).astype(np.float32)
    return Image(data / data.std(), axes, {"Z": 2.0, "Y": 0.5, "X": 0.5}, "micrometer", "picture")


def words_of(figure: Figure) -> str:
    """All that is written in a figure."""
    return " ".join(text.get_text() for text in figure.findobj(Text))


CASES = {
    "grey": ((40, 52), "YX", 1, 2),
    "rgb": ((40, 52, 3), "YXC", 3, 2),
    "two channels": ((2, 40, 52), "CYX", 2, 2),
    "stack": ((6, 24, 28), "ZYX", 1, 3),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made."""
    figures: list[Figure] = []
    make = overview_module._figure

    def keep(*args: Any) -> Any:
        made = make(*args)
        figures.append(made[0])
        return made

    monkeypatch.setattr(overview_module, "_figure", keep)
    return figures


@pytest.mark.parametrize("case", CASES)
def test_it_draws(case: str, tmp_path: Path, drawn: list[Figure]) -> None:
    shape, axes, channels, dims = CASES[case]
    image, model = picture(shape, axes), wrap(Deep(channels, dims=dims), channels=channels, dims=dims)
    made = segment(image, model)
    answers = [
        explain("vanilla-gradient", image, model, Target("cell"), show="signed"),
        explain("seg-grad-cam", image, model, Target("cell", Border())),
    ]
    path = overview(image, made, answers, tmp_path / "overview.png", model.spec)
    with Pillow.open(path) as png:
        assert png.size[0] > 1500
        assert np.asarray(png.convert("L")).std() > 20
    words = words_of(drawn[0])
    for expected in (
        "Image",
        "What the model drew",
        "Vanilla gradient",
        "Seg-Grad-CAM",
        "µm",
        "cell",
        "hand",
        "seed 0",
    ):
        assert expected in words


def test_a_layer_and_its_low_resolution_are_told(tmp_path: Path, drawn: list[Figure]) -> None:
    image, model = picture((40, 52), "YX"), wrap(UNet(1, 2, (4, 8), 2))
    target = Target("cell", Painted(np.ones((40, 52), np.uint8)))
    answers = [explain("seg-grad-cam", image, model, target, layer=name) for name in ("encoder.0", "bottleneck")]
    overview(image, segment(image, model), answers, tmp_path / "overview.png", model.spec)
    words = words_of(drawn[0])
    assert "Seg-Grad-CAM at bottleneck" in words
    assert words.count("20×26 map shown at 40×52") == 1
    assert words.count("map shown at") == 1


def test_without_explanations_or_pixel_size(tmp_path: Path, drawn: list[Figure]) -> None:
    image, model = Image(picture((40, 52), "YX").data, "YX"), wrap(Deep())
    overview(image, segment(image, model), [], tmp_path / "overview.png", model.spec)
    words = words_of(drawn[0])
    assert "µm" not in words
    assert len(drawn[0].axes) == 2


def signed_answer(name: str, unit: str) -> Explanation:
    """A map around zero, as a method answers it."""
    return Explanation((Layer(name, "signed", RNG.normal(size=(40, 52)), unit),))


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([("occlusion", "drop of logit")], "Signed maps: orange speaks for it, blue against it."),
        (
            [("stripes", "features along the concept")],
            "Signed maps: orange lies on the concept's side, blue on the other.",
        ),
        (
            [("occlusion", "drop of logit"), ("lrp", "logit"), ("stripes", "features along the concept")],
            "occlusion, lrp: orange speaks for it, blue against it. stripes: orange lies on the concept's side",
        ),
    ],
)
def test_what_colours_say_comes_from_the_maps(answers: Any, told: str, tmp_path: Path, drawn: list[Figure]) -> None:
    image, model = Image(picture((40, 52), "YX").data, "YX"), wrap(Deep())
    maps = [signed_answer(*answer) for answer in answers]
    overview(image, segment(image, model), maps, tmp_path / "overview.png", model.spec)
    assert f"Outline: what was explained. {told}" in words_of(drawn[0])


def test_without_signed_maps_nothing_is_said_of_their_colours(tmp_path: Path, drawn: list[Figure]) -> None:
    image, model = Image(picture((40, 52), "YX").data, "YX"), wrap(Deep())
    heat = Explanation((Layer("map", "heat", RNG.uniform(size=(40, 52))),))
    overview(image, segment(image, model), [heat], tmp_path / "overview.png", model.spec)
    words = words_of(drawn[0])
    assert "Outline: what was explained." in words
    assert "orange" not in words


@pytest.mark.parametrize(("longest", "length"), [(23.0, 20.0), (7.0, 5.0), (0.13, 0.1), (199.0, 100.0)])
def test_round_lengths(longest: float, length: float) -> None:
    assert panels._round_length(longest) == pytest.approx(length)


def test_ranges_of_colour() -> None:
    values = RNG.normal(size=(50, 50))
    low, high = Layer("a", "signed", values).limits()
    assert low == -high
    low, high = Layer("a", "heat", np.abs(values)).limits()
    assert low == 0
    assert high < np.abs(values).max()
    few = np.zeros((50, 50))
    few[0, :5] = [1, 2, 3, 4, 5]
    assert Layer("a", "heat", few).limits()[1] > 4
    assert Layer("a", "heat", np.zeros((5, 5))).limits() == (0.0, 1.0)


def test_the_slice_with_most_evidence() -> None:
    image = picture((6, 24, 28), "ZYX")
    heat = np.zeros((6, 24, 28), np.float32)
    assert choose_plane(image, "ZYX", ()).z == 3
    heat[4, 3, 3] = 1
    assert choose_plane(image, "ZYX", (Explanation((Layer("a", "heat", heat),)),)).z == 4


def test_a_map_of_a_part_stands_at_its_place() -> None:
    full = full_map(Layer("a", "heat", np.ones((3, 4)), offset=(2, 5)), (10, 12))
    assert np.isnan(full[0, 0])
    assert full[2:5, 5:9].sum() == 12


def test_small_targets_are_looked_at_closely() -> None:
    region = np.zeros((400, 500), bool)
    assert zoom(None, (400, 500)) == (slice(0, 400), slice(0, 500))
    region[200:215, 240:260] = True
    y, x = zoom(region, (400, 500))
    assert y.start <= 160
    assert y.stop >= 250
    assert (x.stop - x.start) / (y.stop - y.start) == pytest.approx(500 / 400, rel=0.02)
    far = np.zeros((400, 500))
    far[0, 0] = far[-1, -1] = 1
    assert zoom(region, (400, 500), far) == (slice(0, 400), slice(0, 500))


def test_channels_get_colours() -> None:
    flat = Plane("YX")
    two = colours(picture((2, 40, 52), "CYX"), flat)
    assert two.shape == (40, 52, 3)
    assert two.max() <= 1
    rgb = Image(RNG.integers(0, 255, (40, 52, 3), np.uint8), "YXC")
    assert np.allclose(colours(rgb, flat) * 255, rgb.data)
    series = colours(picture((4, 40, 52), "TYX"), flat)
    assert series.shape == (40, 52, 3)
    assert planes.greyed(two).std() > 0


def test_the_region_is_found_again(tmp_path: Path) -> None:
    image, model = picture((40, 52), "YX"), wrap(Deep())
    made = segment(image, model)
    cells = np.asarray(made.labels) == 1
    spot = tuple(int(v) for v in np.argwhere(cells)[0])
    mask = np.zeros((40, 52), np.uint8)
    mask[3:9, 3:9] = 1
    np.save(tmp_path / "mask.npy", mask)

    def asked(target: Target) -> Explanation:
        return explain("vanilla-gradient", image, model, target)

    def found(target: Target) -> Any:
        return region_of(asked(target), made, model.spec)

    assert np.array_equal(found(Target("cell")), cells)
    assert found(Target("cell", Object(at=spot)))[spot]
    assert found(Target("cell", Point(spot))).sum() == 1
    assert np.array_equal(found(Target("cell", Painted(mask, str(tmp_path / "mask.npy")))), mask > 0)
    assert found(Target("cell", Painted(mask))) is None
    assert told(asked(Target("cell", Object(1)))).startswith("one cell, object 1")
    assert " · 1 pixel · " in told(asked(Target("cell", Point((5, 5)))))
    assert "border of every pixel of cell" in told(asked(Target("cell", Border())))
    stack = Segmentation("TYX", "YX", np.asarray(made.labels)[None], np.asarray(made.entropy)[None])
    assert region_of(asked(Target("cell")), stack, model.spec) is None


def test_the_region_of_classes_that_overlap_needs_probabilities() -> None:
    class Nested(torch.nn.Module):
        """All that is bright is organ, and the brightest of it is tumour as well."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([4 * x - 1, 8 * x - 4], 1)

    model = wrap(Nested(), classes=("background", "organ", "tumour"), multilabel=True)
    image = Image(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10), "YX")
    bare, whole = segment(image, model), segment(image, model, probabilities=True)
    for target, pixels in ((Target("organ"), image.data > 0.25), (Target("organ", Border()), None)):
        answer = explain("vanilla-gradient", image, model, target)
        assert region_of(answer, bare, model.spec) is None
        found = region_of(answer, whole, model.spec)
        assert found is not None
        assert pixels is None or np.array_equal(found, pixels)
    for target in (Target("organ", Point((5, 5))), Target(None, Object(1))):
        answer = explain("vanilla-gradient", image, model, target)
        one, two = (region_of(answer, made, model.spec) for made in (bare, whole))
        assert one is not None
        assert np.array_equal(one, two)
