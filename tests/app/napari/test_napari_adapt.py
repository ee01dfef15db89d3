"""From layers to images: axes, position, boxes, shapes, clicks, paint."""

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from viewer_help import blobs

from seglens.app.napari import adapt
from seglens.core.errors import ImageMismatch, NoSuchRegion

AFFINE = np.array([[0.9, -0.3, 0.0, 5.0], [0.3, 0.9, 0.0, -7.0], [0.0, 0.0, 1.1, 2.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("shape", "rgb", "labels", "axes"),
    [
        ((8, 9), False, None, "YX"),
        ((3, 8, 9), False, None, "ZYX"),
        ((2, 3, 8, 9), False, None, "TZYX"),
        ((2, 3, 4, 8, 9), False, None, "TCZYX"),
        ((8, 9, 3), True, None, "YXC"),
        ((5, 8, 9, 4), True, None, "ZYXC"),
        ((3, 8, 9), False, ("c", "y", "x"), "CYX"),
        ((3, 8, 9), False, ("time", "y", "x"), "TYX"),
        ((3, 8, 9), False, ("a", "b", "c"), "ZYX"),
        ((1, 1, 8, 9), False, None, "TZYX"),
    ],
)
def test_axes_are_guessed(shape, rgb, labels, axes):
    layer = Image(np.zeros(shape, np.uint8), rgb=rgb, axis_labels=labels)
    assert adapt.guess(layer) == axes


def test_too_many_axes_are_refused():
    with pytest.raises(ImageMismatch):
        adapt.guess(Image(np.zeros((1, 1, 1, 1, 4, 4), np.uint8)))


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "multiscale"])
def test_any_array_is_taken_as_it_is(kind, tmp_path):
    data = blobs(40, 60)
    wrapped = {
        "numpy": lambda: data,
        "dask": lambda: da.from_array(data, chunks=20),
        "zarr": lambda: _zarr(tmp_path, data),
        "multiscale": lambda: [data, data[::2, ::2]],
    }[kind]()
    layer = Image(wrapped, multiscale=kind == "multiscale")
    image = adapt.image_of(layer, "YX")
    assert image.shape == (40, 60)
    np.testing.assert_array_equal(image.read("YX"), data)
    assert type(image.data) is type(wrapped[0] if kind == "multiscale" else wrapped)


def test_nothing_is_read_when_an_image_is_made():
    def explode(block):
        raise AssertionError("read")

    lazy = da.zeros((10_000, 10_000), chunks=1000, dtype="uint8").map_blocks(explode, dtype="uint8")
    layer = Image(lazy, contrast_limits=(0, 1), visible=False)
    assert adapt.image_of(layer, "YX").shape == (10_000, 10_000)


def test_scale_and_unit_become_the_pixel_size():
    layer = Image(np.zeros((4, 8, 9)), scale=(2, 0.5, 0.25), units=("um", "um", "um"))
    image = adapt.image_of(layer, "ZYX")
    assert image.pixel_size == {"Z": 2.0, "Y": 0.5, "X": 0.25}
    assert image.unit == "micrometer"


def test_another_kind_of_layer_is_refused():
    with pytest.raises(ImageMismatch, match="Labels"):
        adapt.image_of(Labels(np.zeros((4, 4), int)), "YX")


def test_current_position_follows_scale_and_affine():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((5, 7, 20, 20)), scale=(1, 2.5, 1, 1), translate=(0, 10, 0, 0))
    viewer.dims.set_point(0, 3)
    viewer.dims.set_point(1, 10 + 4 * 2.5)
    assert adapt.steps(layer, viewer, "TZYX", "YX") == {"T": 3, "Z": 4}
    assert adapt.steps(layer, viewer, "TZYX", "ZYX") == {"T": 3}
    assert adapt.steps(layer, viewer, "TCYX", "YX") == {"T": 3}


def test_position_outside_a_shorter_layer_is_clipped():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 20, 20)))
    viewer.add_image(np.zeros((30, 20, 20)))
    viewer.dims.set_point(0, 25)
    assert adapt.steps(layer, viewer, "ZYX", "YX") == {"Z": 2}


def test_view_box_is_the_visible_part():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((4, 50, 60)))
    layer.corner_pixels = np.array([[0, 10, 20], [0, 29, 59]])
    assert adapt.view_box(layer, viewer, "ZYX", "YX") == {"Y": slice(10, 30), "X": slice(20, 60)}
    # a 3-D model needs all slices, whatever is displayed
    assert "Z" not in adapt.view_box(layer, viewer, "ZYX", "ZYX")
    viewer.dims.ndisplay = 3
    assert adapt.view_box(layer, viewer, "ZYX", "YX") == {}


def test_nothing_in_view_is_an_error_with_a_remedy():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((50, 60)))
    layer.corner_pixels = np.array([[49, 59], [49, 59]])
    with pytest.raises(ImageMismatch, match="in view"):
        adapt.view_box(layer, viewer, "YX", "YX")


def test_shapes_become_boxes_on_a_scaled_layer():
    layer = Image(np.zeros((50, 60)), scale=(2, 2))
    shapes = Shapes([[[20, 20], [20, 60], [40, 60], [40, 20]], [[80, 80], [80, 90], [90, 90], [90, 80]]])
    boxes = adapt.shape_boxes(shapes, layer, "YX", "YX")
    assert boxes == [{"Y": slice(10, 21), "X": slice(10, 31)}, {"Y": slice(40, 46), "X": slice(40, 46)}]
    shapes.selected_data = {1}
    assert adapt.shape_boxes(shapes, layer, "YX", "YX") == boxes[1:]


def test_flat_shapes_in_a_stack_leave_the_depth_open():
    layer = Image(np.zeros((9, 50, 60)))
    shapes = Shapes([[[4, 5, 5], [4, 5, 20], [4, 20, 20], [4, 20, 5]]])
    assert adapt.shape_boxes(shapes, layer, "ZYX", "ZYX") == [{"Y": slice(5, 21), "X": slice(5, 21)}]


def test_shapes_off_the_image_are_an_error():
    layer = Image(np.zeros((50, 60)))
    with pytest.raises(NoSuchRegion):
        adapt.shape_boxes(Shapes([[[200, 200], [200, 220], [220, 220], [220, 200]]]), layer, "YX", "YX")


def test_a_click_finds_its_pixel_through_an_affine():
    layer = Image(np.zeros((6, 40, 50)), scale=(2, 0.5, 0.5), affine=AFFINE)
    world = layer.data_to_world((3, 17, 31))
    assert adapt.pixel_at(layer, world) == (3, 17, 31)
    assert adapt.pixel_at(layer, layer.data_to_world((3, 45, 31))) is None


def test_paint_is_read_from_the_crop_only_and_copied():
    layer = Image(blobs(4, 40, 50))
    target = Labels(np.zeros((4, 40, 50), np.uint8), metadata={"seglens": {"role": "target"}})
    target.data[2, 12, 15], target.data[2, 20, 30] = 1, 2
    image = adapt.image_of(layer, "ZYX").select(Z=2).crop(Y=slice(10, 30), X=slice(10, 40))
    mask = adapt.painted(target, layer, "ZYX", image, "YX")
    assert mask.shape == (20, 30)
    assert mask[2, 5] == 1
    assert mask[10, 20] == -1
    target.data[2, 12, 15] = 0
    assert mask[2, 5] == 1
    with pytest.raises(NoSuchRegion, match="painted"):
        adapt.painted(target, layer, "ZYX", image.crop(Y=slice(15, 20)), "YX")


def test_every_label_of_another_layer_counts_for():
    layer, target = Image(blobs(40, 50)), Labels(np.zeros((40, 50), int))
    target.data[5:8, 5:8] = 2
    assert adapt.painted(target, layer, "YX", adapt.image_of(layer, "YX"), "YX").sum() == 9


def test_paint_on_another_grid_is_resampled():
    layer = Image(blobs(40, 50), scale=(0.5, 0.5))
    target = Labels(np.zeros((20, 25), int))
    target.data[5:10, 10:15] = 1
    mask = adapt.painted(target, layer, "YX", adapt.image_of(layer, "YX"), "YX")
    assert mask.shape == (40, 50)
    assert 80 <= mask.sum() <= 121
    assert mask[14, 24] == 1


def test_a_prediction_of_a_part_serves_as_painted_region():
    layer = Image(blobs(40, 50))
    part = Labels(np.ones((6, 7), int), translate=(10, 20))
    mask = adapt.painted(part, layer, "YX", adapt.image_of(layer, "YX"), "YX")
    np.testing.assert_array_equal(np.argwhere(mask)[[0, -1]], [[10, 20], [15, 26]])


def test_paint_on_a_plane_serves_every_channel():
    layer = Image(np.zeros((3, 40, 50)), axis_labels=("c", "y", "x"))
    target = Labels(np.zeros((40, 50), int))
    target.data[5, 6] = 1
    mask = adapt.painted(target, layer, "CYX", adapt.image_of(layer, "CYX"), "YX")
    np.testing.assert_array_equal(np.argwhere(mask), [[5, 6]])


def _zarr(folder, data):
    array = zarr.create_array(str(folder / "a.zarr"), shape=data.shape, dtype=data.dtype)
    array[:] = data
    return array
