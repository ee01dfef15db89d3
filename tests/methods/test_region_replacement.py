"""Region replacement: the tests of its card (A/C2)."""

from __future__ import annotations

import numpy as np
import pytest

from hand import Context, Threshold, context_image, wrap
from seglens.core.errors import NoSuchRegion
from seglens.core.image import Image
from seglens.core.target import Object, Painted, Target
from seglens.session import explain


def bright_square() -> Image:
    data = np.full((30, 30), 0.2, np.float32)
    data[5:12, 6:14] = 0.9
    data[20, 20] = 0.21
    return Image(data, "YX")


def test_threshold_model_leaves_nothing_and_spills_nothing():
    answer = explain("region-replacement", bright_square(), wrap(Threshold()), Target("cell"))
    assert "0% of it is still cell" in answer.text
    assert "0 new pixels" in answer.text
    assert "No other object changed its class." in answer.text
    assert (answer["mask after"].data == 0).all()
    changed = answer["changed pixels"].data > 0
    assert changed.sum() == 7 * 8
    assert "control" in answer.text


def test_the_fill_is_the_mean_of_the_rest_and_not_of_the_image():
    image = bright_square()
    edited = explain("region-replacement", image, wrap(Threshold()), Target("cell"))["edited image"].data
    pixels = image.read("YX")
    outside = pixels[pixels < 0.5]
    np.testing.assert_allclose(edited[7, 8], outside.mean(), rtol=1e-5)
    np.testing.assert_allclose(edited[pixels < 0.5], outside, rtol=1e-5)


def test_context_model_keeps_its_answer_without_the_object_and_loses_it_without_the_marker():
    image, cell, zone = context_image()
    classes = ("background", "healthy", "infected")
    model = wrap(Context(), classes=classes)
    # what stays around the object is dark, so the object's pixels become background: ask with its own grey
    without_object = explain("region-replacement", image, model, Target("infected", Painted(cell)), fill="grey")
    assert (without_object["mask after"].data[cell] == classes.index("infected")).mean() > 0.95
    marker = zone & (image.read("YX") > 0.8)
    without_marker = explain("region-replacement", image, model, Target("infected", Painted(marker)))
    assert "Elsewhere, object 1 changed from infected to healthy" in without_marker.text
    after = without_marker["mask after"].data
    assert (after[cell] == classes.index("infected")).mean() == 0
    assert (after[cell] == classes.index("healthy")).mean() == 1


def test_tables_say_which_object_was_replaced():
    data = np.full((30, 30), 0.2, np.float32)
    data[2:8, 2:8] = data[18:25, 18:25] = 0.9
    answer = explain("region-replacement", Image(data, "YX"), wrap(Threshold()), Target(None, Object(2)))
    table = answer.tables[1].columns
    assert table["object"] == [1, 2]
    assert table["replaced"] == [False, True]
    assert table["share of pixels with the same class"] == [1.0, 0.0]
    assert answer.tables[0].columns["pixels after"][1] == 36


def test_feather_softens_outwards_only_and_dilate_grows():
    image = bright_square()
    plain = explain("region-replacement", image, wrap(Threshold()), Target("cell"))["edited image"].data
    soft = explain("region-replacement", image, wrap(Threshold()), Target("cell"), feather=2.0)["edited image"].data
    inside = image.read("YX") > 0.5
    np.testing.assert_allclose(plain[inside], soft[inside], atol=1e-6)
    grown = explain("region-replacement", image, wrap(Threshold()), Target("cell"), dilate=3)
    assert grown.text != ""
    table = grown.tables[0].columns
    assert table["pixels before"][1] == 56


def test_a_region_that_is_the_whole_image_has_no_rest():
    with pytest.raises(NoSuchRegion, match="whole image"):
        explain("region-replacement", bright_square(), wrap(Threshold()), Target("cell", Painted(np.ones((30, 30)))))
