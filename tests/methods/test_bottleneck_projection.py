"""Bottleneck projection: blobs of four planted modes, one of them hard, through a network (card B/P1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.nn import functional as F

from hand import wrap
from seglens.core.image import Image
from seglens.core.target import Target
from seglens.engine.features import build_bank
from seglens.engine.features.projection import project
from seglens.session import explain


class Blobs(nn.Module):
    """Draws what is brighter than 0.2; its features are the brightness of a pixel and of what is around it."""

    def __init__(self) -> None:
        """Wire it."""
        super().__init__()
        self.look, self.head = nn.Identity(), nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[1, 0], self.head.bias[1] = 50, -10
            self.head.bias[0] = 0

    def forward(self, x):
        """(N, 1, *space) to (N, 2, *space)."""
        around = F.avg_pool2d(x, 9, 1, 4)
        return self.head(self.look(torch.cat([x, around / (x + 0.1)], 1)))


def blobs(seed, side=16):
    """Sixteen blobs, small or large × dim or bright: image, truth, mode and number per blob. Small dim ones are hard:
    the truth is much larger than what is bright enough."""
    rng = np.random.default_rng(seed)
    pixels, truth, numbers = (np.zeros((64, 64)) for _ in range(3))
    modes = []
    for n in range(16):
        small, dim = rng.random() < 0.5, rng.random() < 0.5
        y, x = (4 + 16 * (n // 4), 4 + 16 * (n % 4))
        size = 4 if small else 9
        at = (slice(y, y + size), slice(x, x + size))
        pixels[at] = (0.35 if dim else 0.9) + 0.02 * rng.normal()
        truth[(slice(y, y + 9), slice(x, x + 9)) if small and dim else at] = 1
        numbers[at] = n + 1
        modes.append(2 * small + dim)
    image = Image((pixels + 0.01 * rng.normal(size=pixels.shape)).astype(np.float32), "YX", name=f"blobs {seed}")
    return image, truth.astype(int), np.array(modes), numbers


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The model, a bank of 512 blobs with their truth, and the mode of each."""
    model = wrap(Blobs())
    shown = [blobs(seed) for seed in range(32)]
    masks = {image.name: truth for image, truth, *_ in shown}
    folder = tmp_path_factory.mktemp("projection")
    bank = build_bank(
        model, [image for image, *_ in shown], folder / "b", layer="look", masks=masks, masks_are="classes"
    )  # fmt: skip
    modes = np.concatenate([modes for _, _, modes, _ in shown])
    assert len(bank) == len(modes) == 512
    yield model, bank, modes
    bank.close()


def ask(built, **parameters):
    model, bank, _ = built
    return explain("bottleneck-projection", blobs(100)[0], model, Target("cell"), bank=bank, **parameters)


def test_planted_modes_come_back_and_the_hard_one_is_named(built):
    answer, modes = ask(built), built[2]
    points = answer.tables[3].columns
    assert adjusted_rand_score(modes[points["row"]], points["cluster"]) > 0.9
    clusters = answer.tables[0].rows()
    assert len(clusters) == 4
    worst = min(clusters, key=lambda c: c["mean IoU"])
    assert worst["mean IoU"] < 0.3 < 0.9 < min(c["mean IoU"] for c in clusters if c is not worst)
    assert modes[worst["row"]] == 3
    assert answer.text.endswith(f"cluster {worst['cluster']}: {worst['mean IoU']:.2f}.")
    examples = [e["row"] for e in answer.tables[1].rows() if e["cluster"] == worst["cluster"]]
    assert len(examples) == 5
    assert (modes[examples] == 3).all()


def test_objects_of_the_image_get_the_iou_of_their_like(built):
    answer = ask(built)
    _, _, modes, numbers = blobs(100)
    likely, cluster = answer["IoU of the nearest examples"].data, answer["cluster of each object"].data
    for n, mode in enumerate(modes):
        inside = numbers == n + 1
        assert (likely[inside] < 0.4).all() == (mode == 3)
        assert len(set(cluster[inside])) == 1
    assert len({int(cluster[numbers == n + 1][0]) for n in np.flatnonzero(modes == 3)}) == 1
    assert not likely[numbers == 0].any()
    rows = answer.tables[2].rows()
    assert [row["object"] for row in rows] == list(range(1, 17))
    assert all("IoU of the nearest examples" in row for row in rows)


def test_figures_are_the_points_and_the_plane(built):
    scatter, plane, smooth, count = ask(built).figures
    assert [f.kind for f in (scatter, plane, smooth, count)] == ["scatter", "map", "map", "map"]
    assert set(scatter.series) == {"cluster 1", "cluster 2", "cluster 3", "cluster 4", "this image"}
    assert all(len(y) == len(scatter.x) == 512 + 16 for y in scatter.series.values())
    told = np.array([[np.nan if v is None else v for v in y] for y in scatter.series.values()], float)
    assert (np.isfinite(told).sum(0) == 1).all()
    levels = np.array([[np.nan if v is None else v for v in row] for row in plane.series.values()], float)
    assert levels.shape == (24, 24)
    assert not any(v is None for row in smooth.series.values() for v in row)
    assert sum(v or 0 for row in count.series.values() for v in row) == 512
    assert np.nanmin(levels) < 0.3
    assert np.nanmax(levels) > 0.9


def test_the_answer_is_the_projection_that_the_viewer_gets(built):
    found, points = project(built[1]), ask(built).tables[3].columns
    np.testing.assert_allclose(found.points, np.stack([points["x"], points["y"]], 1), atol=1e-6)
    np.testing.assert_array_equal(found.labels + 1, points["cluster"])


def test_dbscan_leaves_alone_what_is_alone(built, tmp_path):
    model, bank, modes = built
    answer = ask(built, clusters="dbscan", components=3)
    labels = np.array([-1 if c is None else c for c in answer.tables[3].columns["cluster"]])
    inside = labels > 0
    assert inside.mean() > 0.8
    assert adjusted_rand_score(modes[inside], labels[inside]) > 0.8
    assert "DBSCAN" in answer.text
    assert set(answer.tables[3].columns) >= {"x", "y", "z"}
    # one very bright blob that has no like
    image = Image(np.pad(np.full((9, 9), 5.0, np.float32), 20), "YX", name="strange")
    told = explain("bottleneck-projection", image, model, Target("cell"), bank=bank, clusters="dbscan")
    assert told.tables[2].rows()[0]["cluster"] is None
    assert told["cluster of each object"].data.max() > len({*labels[inside]})


def test_without_truth_there_is_no_iou(built, tmp_path):
    model, _, _ = built
    bank = build_bank(model, [blobs(seed)[0] for seed in range(3)], tmp_path / "b", layer="look")
    answer = explain("bottleneck-projection", blobs(100)[0], model, Target("cell"), bank=bank)
    assert "No IoU is known" in answer.text
    assert len(answer.figures) == 1
    assert answer.map.name == "distance to the middle of its cluster"
    assert all(c is None for c in answer.tables[0].columns["mean IoU"])
    bank.close()
