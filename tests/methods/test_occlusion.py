"""Occlusion: the tests of its card (A/A1), the public faults it names, and a peer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion

from hand import Context, Deep, Linear, Threshold, cell_target, context_image, small_image, wrap
from seglens.core.errors import NoSuchRegion
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.perturb import windows
from seglens.models.spec import Normalisation
from seglens.session import explain


def region(shape=(24, 27)):
    mask = np.zeros(shape, bool)
    mask[5:12, 6:15] = True
    return Painted(mask)


@pytest.mark.parametrize("fill", ["mean", "black", "white", "grey"])
@pytest.mark.parametrize("normalisation", ["none", "percentile"])
def test_linear_model_drops_by_exactly_what_was_covered(fill, normalisation):
    """Intensities are filled before the frozen normalisation; a fill in normalised units would fail here."""
    module = Linear(2, 2)
    image = Image((small_image(2).data * 200).astype(np.uint8), "CYX")
    model = wrap(module, channels=2, normalisation=Normalisation(normalisation))
    target = Target(1, region(), reduction="sum")
    answer = explain("occlusion", image, model, target, window=6, stride=5, fill=fill)

    raw = image.read("CYX").astype(np.float64)
    scale, offset = np.ones((2, 1, 1)), np.zeros((2, 1, 1))
    if normalisation == "percentile":
        low, high = np.percentile(raw, [1, 99.8], axis=(1, 2), keepdims=True)
        scale, offset = high - low, low
    mask = torch.from_numpy(region().mask).float()[None, None]
    weight = torch.nn.functional.conv_transpose2d(mask, module.conv.weight[1:2].detach(), padding=2)[0].numpy()
    level = {"mean": raw.mean((1, 2), keepdims=True), "black": 0, "white": 255, "grey": 127.5}[fill]
    missing = weight * (raw - level) / scale
    assert offset.shape == (2, 1, 1)  # an offset cancels out of every difference
    expected = [missing[(slice(None), *box)].sum() for box in windows((24, 27), 6, 5)]
    np.testing.assert_allclose(answer.tables[0].columns["drop"], expected, rtol=1e-4, atol=1e-4)


def test_normalisation_is_not_fitted_again_on_the_covered_image():
    """A model that normalises by the image's maximum: covering it must not brighten the rest."""
    data = np.full((16, 16), 50, np.uint8)
    data[2, 2] = 250
    data[0, 0] = 0
    model = wrap(Threshold(0.1), normalisation=Normalisation("percentile", low=0, high=100))
    mask = np.zeros((16, 16), bool)
    mask[10:12, 10:12] = True
    answer = explain("occlusion", Image(data, "YX"), model, Target(1, Painted(mask)), window=4, stride=4)
    drops = answer.map.data
    assert drops[2, 2] == 0
    expected = 20 * (50 - data.mean()) / 250
    np.testing.assert_allclose(drops[10:12, 10:12], expected, atol=1e-4)


def test_a_live_mask_would_lie():
    """Covering half of a bright region halves the frozen mean; a region chosen again would not drop at all."""
    data = np.zeros((16, 16), np.float32)
    data[4:12, 4:12] = 1
    answer = explain(
        "occlusion", Image(data, "YX"), wrap(Threshold()), Target("cell"), window=8, stride=4, fill="black"
    )
    half = answer.tables[0].rows()[
        [r["Y start"] == 4 and r["X start"] == 0 for r in answer.tables[0].rows()].index(True)
    ]
    assert half["drop"] == pytest.approx(10)


def test_agrees_with_captum_in_2d_and_3d():
    for dims in (2, 3):
        model = wrap(Deep(2, 3, dims=dims, seed=2), channels=2, classes=("a", "b", "c"), dims=dims)
        image = small_image(2, dims=dims)
        space = image.shape[1:]
        mask = np.zeros(space, bool)
        mask[tuple(slice(2, 7) for _ in space)] = True
        answer = explain(
            "occlusion", image, model, Target("b", Painted(mask), reduction="sum"), window=4, stride=2, fill="black"
        )
        x = torch.from_numpy(image.read("C" + image.axes[1:]))[None]
        inside = torch.from_numpy(mask)

        def score(z, model=model, inside=inside):
            return (model.module(z)[:, 1] * inside).flatten(1).sum(1)

        with torch.no_grad():
            theirs = CaptumOcclusion(score).attribute(
                x, sliding_window_shapes=(2, *(4,) * dims), strides=(2, *(2,) * dims), perturbations_per_eval=8
            )[0, 0]
        # captum cuts its last window at the border, ours ends there: compare where the grids agree
        same = tuple(slice(0, (n - 4) // 2 * 2 + (4 if (n - 4) % 2 == 0 else 2)) for n in space)
        # captum sums in float32
        np.testing.assert_allclose(answer.map.data[same], theirs.numpy()[same], atol=2e-4)


def test_map_is_the_mean_over_windows_not_the_sum():
    """A model whose every pixel counts the same must give a flat map, also at the border."""

    class Mean(torch.nn.Module):
        def forward(self, x):
            total = x.mean((2, 3), keepdim=True).expand_as(x)
            return torch.cat([torch.zeros_like(total), total], 1)

    image = Image(np.full((20, 20), 0.5, np.float32) + np.eye(20, dtype=np.float32) * 1e-6, "YX")
    answer = explain("occlusion", image, wrap(Mean()), Target(1), window=5, stride=2, fill="black")
    assert np.ptp(answer.map.data) < 1e-4 * answer.map.data.max()


def test_context_only_leaves_the_region_alone_and_object_only_the_rest():
    image, cell, zone = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    context = explain("occlusion", image, model, cell_target(cell), window=6, stride=3, where="context")
    for row in context.tables[0].rows():
        assert not cell[row["Y start"] : row["Y stop"], row["X start"] : row["X stop"]].any()
    assert zone[np.unravel_index(context.map.data.argmax(), zone.shape)]
    inside = explain("occlusion", image, model, cell_target(cell), window=6, stride=3, where="object")
    assert np.abs(inside.map.data[~cell]).max() == 0


def test_no_window_outside_a_region_that_fills_the_image():
    image = small_image()
    with pytest.raises(NoSuchRegion) as caught:
        explain("occlusion", image, wrap(Deep()), Target(1, Painted(np.ones((24, 27)))), where="context")
    assert "--where whole" in caught.value.fix


def test_most_needed_window_holds_the_marker():
    image, cell, zone = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    answer = explain("occlusion", image, model, cell_target(cell), window=5, stride=2)
    box = answer["most needed window"].data > 0
    assert (box & zone).sum() > 0.5 * box.sum()


def test_scaling_for_metric_targets():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    target = Target("infected", Painted(cell), "dice")
    scaled = explain("occlusion", image, model, target, window=6, stride=6, scale="min-max").map.data
    assert scaled.min() == 0
    assert scaled.max() == 1
    z = explain("occlusion", image, model, target, window=6, stride=6, scale="z-score").map.data
    assert abs(z.mean()) < 1e-4
    assert abs(z.std() - 1) < 1e-2


def test_windows_cover_every_pixel_once_more_than_not_at_all():
    for shape, size, stride in [((17, 23), 5, 3), ((4, 4), 9, 2), ((7, 9, 11), 4, 4)]:
        covered = np.zeros(shape, int)
        for box in windows(shape, size, stride):
            covered[box] += 1
        assert covered.min() >= 1


def test_memory_that_runs_out_halves_the_batch_and_says_so():
    class Hungry(Deep):
        largest = 0

        def forward(self, x):
            type(self).largest = max(type(self).largest, len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    run = Run(batch=16)
    answer = explain("occlusion", small_image(), wrap(Hungry()), Target(1, region()), run=run, window=8, stride=8)
    plain = explain("occlusion", small_image(), wrap(Deep()), Target(1, region()), window=8, stride=8)
    np.testing.assert_allclose(answer.map.data, plain.map.data, atol=1e-6)
    assert Hungry.largest > 3
    assert any("batches of 2" in note for note in answer.record.notes)
