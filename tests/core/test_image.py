"""Images: named axes, views that read nothing, selections, fingerprints."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from seglens.core.errors import ImageMismatch
from seglens.core.image import Image, guess_axes

DATA = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6).astype(np.uint16)


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_views_of_any_array(kind, tmp_path):
    data = {"numpy": lambda: DATA, "dask": lambda: da.from_array(DATA, chunks=2),
            "zarr": lambda: zarr.array(DATA, store=tmp_path / "a.zarr")}[kind]()  # fmt: skip
    image = Image(data, "TCZYX", {"Z": 2.0, "Y": 0.5, "X": 0.5}, "micrometer")
    view = image.select(T=1, Z=2).crop(Y=slice(1, 4), X=slice(2, 99))
    assert (view.kept, view.shape) == ("CYX", (3, 3, 4))
    np.testing.assert_array_equal(view.read("YXC"), DATA[1, :, 2, 1:4, 2:].transpose(1, 2, 0))
    assert view.offset("ZYX") == (2, 1, 2)
    assert view.scale("ZYX") == (2.0, 0.5, 0.5)
    again = view.crop(Y=slice(1, 3))
    np.testing.assert_array_equal(again.read("CYX"), DATA[1, :, 2, 2:4, 2:])


def test_channels_can_be_chosen_repeated_and_made():
    image = Image(DATA, "TCZYX").select(T=0, Z=0)
    np.testing.assert_array_equal(image.with_channels((2, 0)).read("CYX"), DATA[0, [2, 0], 0])
    grey = Image(DATA[0, 0, 0], "YX").with_channels((0, 0, 0))
    assert grey.size("C") == 3
    np.testing.assert_array_equal(grey.read("CYX"), np.stack([DATA[0, 0, 0]] * 3))
    assert Image(DATA[0, 0, 0], "YX").read("CYX").shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Image(DATA, "TCZY"), "(2, 3, 4, 5, 6)"),
        (lambda: Image(DATA, "TCZYY"), "TCZYY"),
        (lambda: Image(DATA.astype(complex), "TCZYX"), "complex128"),
        (lambda: Image(np.zeros((0, 4)), "YX"), "empty"),
        (lambda: Image(DATA, "TCZYX").select(T=2), "2 positions along T"),
        (lambda: Image(DATA, "TCZYX").select(Q=1), "no Q axis"),
        (lambda: Image(DATA, "TCZYX").with_channels((3,)), "3 channels"),
        (lambda: Image(DATA, "TCZYX").read("ZYX"), "TCZYX"),
        (lambda: guess_axes((3,)), "(3,)"),
    ],
)
def test_refusals(make, word):
    with pytest.raises(ImageMismatch) as caught:
        make()
    assert word in caught.value.what
    assert caught.value.fix.endswith(".")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((9, 9), "YX"), ((9, 9, 3), "YXC"), ((9, 9, 9), "ZYX"), ((9, 9, 9, 4), "ZYXC"), ((2, 9, 9, 9), "TZYX")],
)
def test_axes_are_guessed(shape, axes):
    assert guess_axes(shape) == axes


def test_fingerprint_follows_pixels_and_selection_and_is_cheap_on_large_images():
    image = Image(DATA, "TCZYX")
    assert image.fingerprint() == Image(DATA.copy(), "TCZYX").fingerprint()
    assert image.fingerprint() != image.select(T=1).fingerprint()
    changed = DATA.copy()
    changed[0, 0, 0, 0, 0] += 1
    assert image.fingerprint() != Image(changed, "TCZYX").fingerprint()

    class Large:
        shape, dtype, read = (60_000, 60_000), np.dtype(np.uint8), 0

        def __getitem__(self, index):
            size = tuple(s.stop - s.start for s in index)
            type(self).read += int(np.prod(size))
            return np.ones(size, np.uint8)

    assert len(Image(Large(), "YX").fingerprint()) == 64
    assert Large.read <= 2_000_000
