"""Prediction by tiles: equal to the whole image, bounded, cancellable, and alive when memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zarr

from hand import Deep, small_image, spec, wrap
from seglens.core.errors import Cancelled, ImageMismatch, ModelMismatch, OutOfMemory
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.models.nets.unet import UNet
from seglens.models.predict import make_grid, predict
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiles import Blend, Grid, ramp
from seglens.session import segment


def whole(model, image):
    with torch.inference_mode():
        x = torch.from_numpy(image.read("C" + model.spec.axes).astype(np.float32))[None]
        return model.logits(x).softmax(1)[0].numpy()


def unet(dims=2):
    torch.manual_seed(0)
    net = UNet(1, 3, (4, 6, 8)[: 5 - dims], dims=dims).eval()
    classes = ("background", "a", "b")
    return SegmentationModel(net, spec(1, classes, dims, divisor=net.divisor))


@pytest.mark.parametrize(("dims", "shape", "tile"), [(2, (203, 171), 96), (3, (14, 30, 90), 60)])
def test_tiled_equals_untiled_when_the_halo_covers_the_reach(dims, shape, tile):
    model = unet(dims)
    data = np.random.default_rng(0).random(shape).astype(np.float32)
    image = Image(data, "ZYX"[-dims:])
    result = segment(image, model, tile=tile, halo=24, probabilities=True)
    np.testing.assert_allclose(result.probabilities, whole(model, image), atol=1e-4)
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(0))
    p = result.probabilities
    np.testing.assert_allclose(result.entropy, -(p * np.log(p)).sum(0), atol=1e-4)


def test_too_small_a_halo_is_seen():
    """The test above can fail: without context the tiles differ."""
    model = unet()
    image = Image(np.random.default_rng(0).random((160, 160)).astype(np.float32), "YX")
    result = segment(image, model, tile=64, halo=0, probabilities=True)
    assert np.abs(result.probabilities - whole(model, image)).max() > 5e-4


@pytest.mark.parametrize("shape", [(100, 70), (33, 257), (64, 64), (7, 300)])
def test_tiles_cover_everything_and_their_weights_sum_to_one(shape):
    grid = Grid(shape, (48, 48), (8, 8), (6, 6), 4)
    total = np.zeros(shape)
    for tile in grid:
        total[tile.core] += ramp(tile, grid.overlap)
        assert all(c.start >= r.start and c.stop <= r.stop for c, r in zip(tile.core, tile.read, strict=True))
        assert all(r.start % 4 == 0 for r in tile.read)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert len(grid) == len(list(grid))


def test_blend_holds_a_band_and_not_the_image():
    grid = Grid((4000, 64), (48, 64), (8, 0), (6, 0), 4)
    blend = Blend(2, grid.shape)
    for tile in grid:
        size = tuple(c.stop - c.start for c in tile.core)
        out = blend.add(tile, np.full((2, *size), 7.0, np.float32), ramp(tile, grid.overlap))
        np.testing.assert_allclose(out, 7, rtol=1e-5)
        assert blend._band.shape[1] < 100


def test_stacks_are_walked_slice_by_slice():
    data = np.random.default_rng(0).random((2, 3, 20, 24)).astype(np.float32)
    model = wrap(Deep())
    result = segment(Image(data, "TZYX"), model)
    assert result.axes == "TZYX"
    assert result.labels.shape == data.shape
    one = segment(Image(data[1, 2], "YX"), model)
    np.testing.assert_array_equal(result.labels[1, 2], one.labels)


def test_a_lazy_array_is_never_read_whole():
    class Lazy:
        shape, dtype, ndim = (3000, 2500), np.dtype(np.uint8), 2
        largest = 0

        def __getitem__(self, index):
            sizes = [s.stop - s.start for s in index]
            type(self).largest = max(type(self).largest, int(np.prod(sizes)))
            grid = np.add.outer(np.arange(index[0].start, index[0].stop), np.arange(index[1].start, index[1].stop))
            return (grid % 251).astype(np.uint8)

    pieces = predict(wrap(Deep()), Image(Lazy(), "YX"), Run(), tile=256)
    for _ in range(5):
        next(pieces)
    assert Lazy.largest <= 700 * 700


def test_results_go_to_disk_when_asked(tmp_path):
    image = small_image(side=40)
    result = segment(image, wrap(Deep()), out=tmp_path, probabilities=True, tile=24)
    assert isinstance(result.labels, zarr.Array)
    np.testing.assert_array_equal(np.asarray(result.labels), segment(image, wrap(Deep()), tile=24).labels)


def test_cancel_returns_within_one_tile():
    run = Run()
    pieces = predict(wrap(Deep()), Image(np.random.default_rng(0).random((200, 200)), "YX"), run, tile=48)
    seen = [next(pieces), next(pieces)]
    run.cancel()
    with pytest.raises(Cancelled):
        seen += list(pieces)
    assert len(seen) == 2


class Hungry(Deep):
    """Runs out of memory above a number of pixels in a batch, as a device would."""

    limit = 0
    calls: list[tuple[int, ...]] = []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        if x.shape[0] * x.shape[2] * x.shape[3] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(x)


@pytest.mark.parametrize(("limit", "said"), [(96 * 96 * 2, "batch 2"), (96 * 96 // 2 + 3000, "tile 4")])
def test_memory_ladder_halves_the_batch_then_the_tile(limit, said):
    Hungry.limit, Hungry.calls = limit, []
    image = Image(np.random.default_rng(0).random((300, 300)).astype(np.float32), "YX")
    run = Run(batch=4)
    result = segment(image, wrap(Hungry()), run=run, tile=96, halo=8, probabilities=True)
    np.testing.assert_allclose(result.probabilities, whole(wrap(Deep()), image), atol=1e-5)
    assert any(said in note for note in run.notes), run.notes
    assert result.notes == tuple(run.notes)


def test_memory_ladder_ends_with_an_error_that_says_what_was_tried():
    Hungry.limit, Hungry.calls = 0, []
    image = Image(np.random.default_rng(0).random((300, 300)).astype(np.float32), "YX")
    with pytest.raises(OutOfMemory) as caught:
        segment(image, wrap(Hungry()), run=Run(batch=4), tile=96, halo=8)
    assert "batch 2, batch 1, tile" in caught.value.what
    assert caught.value.fix


def test_other_errors_are_not_blamed_on_memory():
    class Broken(Deep):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(ModelMismatch, match="mat1") as caught:
        segment(small_image(), wrap(Broken()))
    assert type(caught.value.__cause__) is RuntimeError


def test_model_is_left_as_it_was():
    model = unet()
    model.module.train()
    segment(Image(np.random.default_rng(0).random((50, 50)), "YX"), model)
    assert all(m.training for m in model.module.modules())
    assert all(p.requires_grad for p in model.module.parameters())


@pytest.mark.parametrize(
    ("data", "axes", "word"),
    [
        (np.full((9, 9), 7), "YX", "constant"),
        (np.array([[np.nan, 1.0], [0.0, 2.0]]), "YX", "1 value that is not a number"),
        (np.ones((1, 5)), "YX", "1×5"),
        (np.random.default_rng(0).random((4, 9, 9)), "CYX", "expects 1 channel ("),
    ],
)
def test_what_cannot_be_segmented_is_told(data, axes, word):
    with pytest.raises(ImageMismatch) as caught:
        segment(Image(data, axes), wrap(Deep()))
    assert word in caught.value.what
    assert caught.value.fix.endswith(".")


def test_default_tiles_hold_the_models_halo():
    model = wrap(Deep(), halo=(120, 120), tile=(128, 128))
    grid = make_grid(model, (2000, 2000), None, None)
    for tile in grid:
        assert all(r.stop - r.start <= 3 * 120 + 16 for r in tile.read)
    assert len(grid) < 20**2
