"""Networks that see several frames at once: the first of three axes is time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hand import spec
from seglens.core.errors import MissingNeed
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.models.segmentation import SegmentationModel
from seglens.session import explain, segment

LAST = 4


class Follows(nn.Module):
    """A pixel is a cell if it is bright in the frame before, and three times as much if two frames before."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, (3, 1, 1), bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[1, 0, :, 0, 0] = torch.tensor([3.0, 1.0, 0.0])

    def forward(self, x):
        return self.conv(nn.functional.pad(x, (0, 0, 0, 0, 2, 0)))


def model(axes="TYX"):
    from dataclasses import replace

    return SegmentationModel(Follows().eval(), replace(spec(dims=3), axes=axes))


def video(axes="TYX"):
    data = np.random.default_rng(0).random((LAST + 1, 12, 10)).astype(np.float32)
    return Image(data, axes, name="video")


def question():
    mask = np.zeros((LAST + 1, 12, 10), bool)
    mask[LAST, 4:8, 3:7] = True
    return Target("cell", Painted(mask)), mask


def test_shares_of_frames():
    target, mask = question()
    image = video()
    answer = explain("kernel-shap", image, model(), target, units="frames", fill="black")
    shares = dict(zip(answer.tables[0].columns["name"], answer.tables[0].columns["Shapley value"], strict=True))
    before, earlier = (float(image.data[LAST - n][mask[LAST]].mean()) for n in (1, 2))
    assert shares["frame 3"] == pytest.approx(before, rel=1e-4)
    assert shares["frame 2"] == pytest.approx(3 * earlier, rel=1e-4)
    assert abs(shares.get("frame 4", 0.0)) < 1e-6


def test_slices_and_frames_are_told_apart():
    target, _ = question()
    with pytest.raises(MissingNeed, match="one slice at a time"):
        explain("kernel-shap", video(), model(), target, units="slices")
    with pytest.raises(MissingNeed, match="one frame at a time"):
        explain("kernel-shap", video("ZYX"), model("ZYX"), target, units="frames")


def test_windows_of_a_video_are_told_by_time():
    target, _ = question()
    answer = explain("occlusion", video(), model(), target, window=4, stride=2, fill="black")
    assert "at T " in answer.text
    assert "T start" in answer.tables[0].columns


def test_objects_go_on_from_frame_to_frame_only_where_the_model_sees_both():
    made = segment(video(), model())
    assert made.axes == made.seen == "TYX"
    labels = np.asarray(made.labels)
    labels[:] = 0
    labels[:, 4:8, 3:7] = 1
    assert made.objects().max() == 1
    alone = type(made)("TYX", "YX", labels, made.entropy)
    assert alone.objects().max() == 1
    assert [int(one.max()) for one in alone.objects()] == [1] * (LAST + 1)
    labels[2, 0, 0] = 1
    assert [int(one.max()) for one in alone.objects()] == [1, 1, 2, 1, 1]


def test_a_later_frame_makes_another_image():
    one, other = video(), video()
    other.data[LAST] += 1
    assert one.fingerprint() != other.fingerprint()
