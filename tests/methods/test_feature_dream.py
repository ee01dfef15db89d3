"""Feature dream: the tests of its card (B/B18), on networks that look at one feature alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from closed import Normalising, model_of
from hand import Linear, wrap
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Object, Painted, Target
from seglens.engine.resolve import resolve
from seglens.methods.gradient._dream import Drive
from seglens.methods.gradient._followed import Followed, features, names
from seglens.methods.gradient._verdicts import verdicts
from seglens.session import explain


class Light(nn.Module):
    """A pixel is a thing as far as its surroundings of 5 pixels are light; it ignores texture."""

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * (F.avg_pool2d(x, 5, 1, 2) - 0.4)
        return torch.cat([torch.zeros_like(score), score], 1)


class Rough(nn.Module):
    """A pixel is a thing as far as its neighbours differ from each other; it ignores how light they are."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
        mean = F.avg_pool2d(padded, 5, 1)
        score = 200 * (F.avg_pool2d(padded**2, 5, 1) - mean**2 - 0.02)
        return torch.cat([torch.zeros_like(score), score], 1)


class Long(nn.Module):
    """A pixel is a thing as far as the line of 15 pixels through it is light."""

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * (F.avg_pool2d(x, (1, 15), 1, (0, 7)) - 0.25)
        return torch.cat([torch.zeros_like(score), score], 1)


def discs(seed: int = 0, rough: float = 0.22) -> Image:
    """Discs of different size, brightness and texture on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    pixels = np.full((96, 96), 0.1)
    for i, (cy, cx) in enumerate([(20, 20), (20, 70), (60, 24), (70, 70)]):
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= (8 + i) ** 2
        texture = rng.choice([-1, 1], pixels.shape) * rough * (0.8 + 0.1 * i)
        pixels = np.where(disc, 0.6 + 0.04 * i + texture, pixels)
    return Image(pixels.astype(np.float32), "YX")


def index(answer) -> dict[str, float]:
    table = answer.tables[0].columns
    scale = next(name for name in table if name.startswith("change / "))
    return dict(zip(table["feature"], table[scale], strict=True))


def verdict(answer) -> dict[str, str]:
    return dict(zip(answer.tables[0].columns["feature"], answer.tables[0].columns["verdict"], strict=True))


def ask(module, **parameters):
    model = wrap(module, classes=("nothing", "thing"))
    return explain("feature-dream", discs(), model, Target("thing"), steps=20, **parameters)


def test_a_network_that_looks_at_light_wants_light_and_one_that_looks_at_texture_wants_texture():
    light, rough = ask(Light()), ask(Rough())
    assert verdict(light)["mean intensity"] == "sensitive: more"
    assert index(light)["mean intensity"] > 1.5 * index(light)["deviation of intensity"]
    assert index(light)["mean intensity"] > 10 * abs(index(light)["elongation"])
    assert verdict(rough)["deviation of intensity"] == "sensitive: more"
    assert abs(index(rough)["deviation of intensity"]) > 3 * abs(index(rough)["mean intensity"])
    for answer in (light, rough):
        assert answer.figures[1].series["score"][-1] > answer.figures[1].series["score"][0]
        assert all(share >= 0.75 for share in answer.tables[0].columns["objects that agree"][:1])


def test_a_network_that_looks_along_lines_wants_long_objects():
    long, light = ask(Long()), ask(Light())
    assert verdict(long)["elongation"] == "sensitive: more"
    assert index(long)["elongation"] > 3 * abs(index(light)["elongation"])


class LightOf(nn.Module):
    """A thing wherever the first channel is light; the logit of the same pixels sees the second channel alone."""

    def forward(self, x: Tensor) -> Tensor:
        drawn = (x[:, :1] > 0.4).float() * 50 - 25
        return torch.cat([torch.zeros_like(drawn), drawn + 0.1 * x[:, 1:]], 1)


def test_what_a_network_ignores_is_within_chance():
    grey = discs().data
    image = Image(np.stack([grey, grey[::-1]]), "CYX")
    model = wrap(LightOf(), channels=2, classes=("nothing", "thing"))
    answer = explain("feature-dream", image, model, Target("thing"), steps=10)
    told = verdict(answer)
    assert told["mean channel 1"] == "sensitive: more"
    for ignored in ("mean channel 0", "area", "elongation", "roundness"):
        assert told[ignored] == "robust"
    assert not answer.tables[0].columns["by chance (95 %)"][answer.tables[0].columns["feature"].index("area")]


def test_a_shuffled_change_has_the_same_size_and_no_sense():
    model = wrap(Light(), classes=("nothing", "thing"))
    case = resolve(discs(), model, Target("thing"), Run())
    drive = Drive(case, 5, 0.02, 0.0, False, "region")
    for _ in drive.walk():
        pass
    for part, logits in drive.controls(3):
        off = part - case.x[(..., *drive.box)]
        torch.testing.assert_close(off.flatten().sort().values, drive.change.flatten().sort().values, atol=1e-5, rtol=0)
        assert logits.shape[2:] == part.shape[2:]
        assert float((off * drive.change).sum()) < 0.7 * float(drive.change.square().sum())


@pytest.mark.parametrize("shape", [(24, 27), (8, 12, 14)])
def test_each_step_has_its_length_and_a_linear_network_is_driven_straight(shape):
    dims = len(shape)
    rng = np.random.default_rng(0)
    image = Image(rng.random(shape).astype(np.float32), "ZYX"[-dims:])
    mask = np.zeros(shape, bool)
    mask[tuple(slice(3, 7) for _ in shape)] = True
    model = wrap(Linear(1, 2, 3, dims), dims=dims)
    case = resolve(image, model, Target("cell", Painted(mask)), Run())
    drive = Drive(case, 4, 0.1, 0.0, False, "region")
    lengths = [float(drive.change.norm()) for _ in drive.walk()]
    step = 0.1 * float(np.ptp(image.data)) * np.sqrt(mask.sum())
    np.testing.assert_allclose(lengths, step * np.arange(1, 5), rtol=1e-4)
    gradient = case.gradient()[(..., *drive.box)]
    torch.testing.assert_close(drive.change / drive.change.norm(), gradient / gradient.norm(), atol=1e-5, rtol=0)
    assert np.allclose(np.diff(drive.scores), step * float(gradient.norm()), rtol=1e-3)


def test_keeps_to_the_range_of_the_image_if_asked():
    free, kept = ask(Light(), size=0.2), ask(Light(), size=0.2, clip=True)
    top = float(discs().data.max())
    assert free["driven image"].data.max() > top + 0.1
    assert kept["driven image"].data.max() <= top + 1e-6


def test_says_how_fine_the_change_is_and_a_blur_makes_it_coarse():
    def fine(answer):
        return int(answer.text.split("; ")[1].split("%")[0])

    rough = fine(ask(Rough()))
    assert rough > 50
    assert fine(ask(Rough(), smooth=3.0)) < 0.5 * rough


def test_one_object_is_followed_where_it_lies_and_the_others_tell_the_scale():
    model = wrap(Light(), classes=("nothing", "thing"))
    answer = explain("feature-dream", discs(), model, Target("thing", Object(at=(20, 20))), steps=6)
    assert "of 1 object" in answer.text
    assert any(name == "change / deviation over objects" for name in answer.tables[0].columns)
    changed = np.abs(answer.map.data) > 0
    assert not changed[40:, 40:].any()
    assert changed[15:25, 15:25].all()


def test_the_region_itself_is_followed_where_the_model_draws_nothing():
    mask = np.zeros((96, 96), bool)
    mask[40:46, 44:54] = True
    model = wrap(Light(), classes=("nothing", "thing"))
    answer = explain("feature-dream", discs(), model, Target("thing", Painted(mask)), steps=3, size=0.001)
    assert "outline" in answer.record.notes[0]
    assert answer.tables[0].columns["first"][answer.tables[0].columns["feature"].index("area")] == 60


def test_drives_what_the_model_draws_now_if_asked():
    region, current = ask(Light(), size=0.05), ask(Light(), size=0.05, drive="current mask")
    assert np.abs(region.map.data - current.map.data).max() > 1e-3
    assert index(current)["area"] > 0


def test_features_of_shapes_are_what_geometry_says():
    y, x = np.mgrid[:60, :60]
    pixels = np.full((60, 60, 1), 0.5)
    told = names(("light",), 2)
    disc = (y - 30) ** 2 + (x - 30) ** 2 <= 400
    one = dict(zip(told, features(disc, pixels, ("light",), (0, 1)), strict=True))
    assert one["area"] == disc.sum()
    assert one["roundness"] == pytest.approx(1, abs=0.005)
    assert one["elongation"] == pytest.approx(1, abs=0.005)
    assert (one["contrast to the rim"], one["deviation of intensity"], one["entropy of texture"]) == (0, 0, 0)
    bar = (np.abs(y - 30) < 3) & (np.abs(x - 30) < 13)  # 5 × 25
    two = dict(zip(told, features(bar, pixels + disc[..., None], ("light",), (0, 2)), strict=True))
    assert two["elongation"] == pytest.approx(5, rel=1e-6)
    assert two["roundness"] == pytest.approx(2 * 125 / (4 * np.pi) / ((25 + 625) / 12), rel=1e-6)
    ball = sum((g - 10) ** 2 for g in np.mgrid[:21, :21, :21]) <= 81
    three = dict(zip(names(("light",), 3), features(ball, np.ones((21, 21, 21, 1)), ("light",), (0, 1)), strict=True))
    assert three["roundness"] == pytest.approx(1, abs=0.01)
    checks = ((y + x) % 2).astype(float)[..., None]
    four = dict(zip(told, features(bar, checks, ("light",), (0, 1)), strict=True))
    assert four["entropy of texture"] == pytest.approx(1, abs=1e-6)  # two kinds of pairs, equally many
    assert four["deviation of intensity"] == pytest.approx(0.5, abs=1e-3)


def test_a_network_without_a_gradient_changes_nothing_and_wants_nothing():
    class Flat(Normalising):
        def forward(self, x):
            return super().forward(x).detach() * 0 + torch.tensor([0.0, 1.0])[:, None, None]

    answer = explain("feature-dream", discs(), model_of(Flat()), Target("thing"), steps=3)
    assert not answer.map.data.any()
    assert set(verdict(answer).values()) == {"robust"}
    assert "Sensitive to (of 1 object): none" in answer.text


class Smooth(nn.Module):
    """A pixel is a thing as far as its surroundings are light and its neighbours alike: noise makes things vanish."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
        mean = F.avg_pool2d(padded, 5, 1)
        rough = F.avg_pool2d(padded**2, 5, 1) - mean**2
        score = 20 * (mean - 0.4) - 4000 * (rough - 0.0004).clamp(min=0).detach()
        return torch.cat([torch.zeros_like(score), score], 1)


def test_what_a_shuffled_change_makes_vanish_is_no_measure_of_chance():
    """Before, the driven end stood in for it: chance was as large as the change, and all was robust."""
    model = wrap(Smooth(), classes=("nothing", "thing"))
    answer = explain("feature-dream", discs(rough=0), model, Target("thing"), steps=10, size=0.05)
    assert verdict(answer)["mean intensity"] == "sensitive: more"
    assert "lost on the way" not in answer.text
    assert " of 40 shuffled changes lost an object" in answer.text


def followed_of(first, last, lost=()):
    """What followed objects tell, without a network: features (objects, F) before and after."""
    seen = object.__new__(Followed)
    seen.curves = [np.array(first, float), np.array(last, float)]
    seen.masks, seen.lost, seen.names = [None] * len(first), set(lost), ["light", "size"]
    seen.deviation = lambda: np.ones(2)
    return seen


def test_chance_is_what_19_of_20_shuffled_changes_stay_below():
    shuffled = np.zeros((100, 1, 2))
    shuffled[:, 0] = np.arange(1, 101)[:, None] * [1, -1]
    table, _, text = verdicts(followed_of([[0, 0]], [[95, 97]]), shuffled, [0, 1])
    assert table.columns["by chance (95 %)"] == pytest.approx([95.05, 95.05])
    assert table.columns["verdict"] == ["robust", "sensitive: more"]
    assert text == "Sensitive to (of 1 object): size (+97). Robust to: light."


def test_lost_objects_are_left_out_of_their_control_alone():
    shuffled = np.ones((4, 2, 2))
    shuffled[:, 1] = 3
    shuffled[0, 1] = shuffled[1] = np.nan
    table, _, text = verdicts(followed_of([[0, 0], [0, 0]], [[9, 0], [9, 0]], lost={1}), shuffled, [0, 1])
    # means over what is left: 1, 2 and 2
    assert table.columns["by chance (95 %)"] == pytest.approx([2, 2])
    assert "2 of 4 shuffled changes lost an object" in text
    assert text.endswith("1 of 2 objects were lost on the way.")
    table, _, text = verdicts(followed_of([[0, 0]], [[9, 0]]), np.full((4, 1, 2), np.nan), [0, 1])
    assert table.columns["verdict"] == ["not known", "not known"]
    assert "No shuffled change leaves an object" in text


def test_shapes_are_measured_in_the_size_of_pixels():
    z, y, x = np.mgrid[:9, :33, :33]
    ball = (4.0 * (z - 4)) ** 2 + (y - 16) ** 2 + (x - 16) ** 2 <= 14**2
    pixels, told = np.ones((*ball.shape, 1)), names(("light",), 3)
    flat, round_ = (
        dict(zip(told, features(ball, pixels, ("light",), (0, 1), size), strict=True)) for size in (None, (4, 1, 1))
    )
    assert flat["elongation"] > 3
    assert round_["elongation"] == pytest.approx(1, abs=0.05)
    assert round_["roundness"] == pytest.approx(1, abs=0.05)
    assert flat["volume"] == round_["volume"] == ball.sum()
    model = wrap(Light(), classes=("nothing", "thing"))
    wide = Image(discs().data, "YX", pixel_size={"Y": 1, "X": 3})
    answer = explain("feature-dream", wide, model, Target("thing"), steps=3)
    first = dict(zip(answer.tables[0].columns["feature"], answer.tables[0].columns["first"], strict=True))
    assert first["elongation"] == pytest.approx(3, abs=0.1)


def test_the_mask_is_shown_on_the_way_and_one_image_is_not_the_network():
    answer = ask(Light(), size=0.05)
    areas = [(answer[name].data == 1).sum() for name in ("mask after step 7", "mask after step 14", "mask after")]
    assert areas == sorted(areas)
    assert areas[0] < areas[-1]
    assert "look at ten" in answer.text
