"""Crops show what is there; images that moved are found again, by file and by pixels."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from seglens.core.errors import BadParameter, Cancelled, ImageMismatch
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.workspace.gallery import Gallery, contrast_of, crop_of, pictures
from seglens.workspace.gallery.pictures import SIDE


def grey(shape: tuple[int, ...] = (40, 60), axes: str = "YX") -> Image:
    """Twelve bits of noise, one pixel much brighter."""
    data = np.random.default_rng(0).integers(100, 1100, shape).astype(np.uint16)
    data[(0,) * len(shape)] = 60000
    return Image(data, axes, name="grey")


def test_intensities_get_the_contrast_of_their_image() -> None:
    image = grey()
    dark = image.data.copy()
    dark[10:20, 10:20] = 100
    crop = crop_of(replace(image, data=dark), ((10, 20), (10, 20)), margin=0)
    assert crop.shape == (10, 10)
    assert crop.dtype == np.uint8
    assert crop.max() <= 2  # dark in its image, so dark in the gallery
    (low, high), *_ = contrast_of(image) or ()
    assert 95 < low < 120
    assert 1050 < high < 1200  # one hot pixel does not make all others black


def test_colour_stays_as_it_is() -> None:
    data = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    np.testing.assert_array_equal(crop_of(Image(data, "YXC"), ((5, 9), (7, 20)), margin=0), data[5:9, 7:20])
    assert contrast_of(Image(data, "YXC")) is None
    clear = np.concatenate([data, data[..., :1]], -1)
    np.testing.assert_array_equal(crop_of(Image(clear, "YXC"), ((5, 9), (7, 20)), margin=0), data[5:9, 7:20])


def test_channels_become_colours() -> None:
    data = np.zeros((2, 20, 20), np.uint16)
    data[0, 5:10], data[1, 10:15] = 1000, 500
    crop = crop_of(Image(data, "CYX"), ((0, 20), (0, 20)))
    assert crop[7, 3].tolist() == [0, 255, 0]
    assert crop[12, 3].tolist() == [255, 0, 255]
    four = crop_of(Image(np.concatenate([data, data]), "CYX"), ((0, 20), (0, 20)))
    assert four[12, 3].tolist() == [0, 255, 0]


def test_the_margin_ends_where_the_image_does() -> None:
    assert crop_of(grey(), ((0, 10), (55, 60)), margin=8).shape == (18, 13)


def test_of_a_volume_it_is_the_slice_of_the_position() -> None:
    data = np.zeros((2, 5, 16, 16), np.float32)
    data[1, 3, 4:8, 4:8] = 1
    volume = Image(data, "TZYX", name="volume")
    crop = crop_of(volume, ((1, 5), (4, 8), (4, 8)), 0, axes="ZYX", position=(3, 5, 5), select={"T": 1})
    assert crop.shape == (4, 4)
    assert crop.min() == 255
    assert crop_of(volume, ((1, 5), (4, 8), (4, 8)), 0, axes="ZYX", position=(2, 5, 5), select={"T": 1}).max() == 0
    frames = Image(data[:, 3], "TYX")
    assert crop_of(frames, ((0, 2), (4, 8), (4, 8)), 0, axes="TYX", position=(1, 5, 5)).min() == 255


def test_what_is_not_a_number_is_black_and_what_is_constant_is_no_fault() -> None:
    data = np.full((8, 8), np.nan, np.float32)
    assert crop_of(Image(data, "YX"), ((0, 8), (0, 8))).max() == 0
    data[:] = 5
    assert crop_of(Image(data, "YX"), ((0, 8), (0, 8))).shape == (8, 8)


class Slide:
    """A large image that is made as it is read, and remembers the most that was read at once."""

    shape, dtype = (6000, 3000), np.dtype(np.uint8)
    most = 0

    def __getitem__(self, at: tuple[slice, slice]) -> np.ndarray:
        rows, columns = (np.arange(part.start, part.stop) for part in at)
        self.most = max(self.most, len(rows) * len(columns))
        return (rows[:, None] // 40 + columns[None] // 60).astype(np.uint8)


def test_large_boxes_become_small_pictures_without_being_read_whole(monkeypatch) -> None:
    image = Image(np.broadcast_to(np.uint8(7), (4000, 2000)), "YX")
    assert crop_of(image, ((0, 4000), (0, 2000))).shape == (SIDE, SIDE // 2)
    slide = Slide()
    monkeypatch.setattr(pictures, "STRIP", 2**18)
    crop = crop_of(Image(slide, "YX"), ((0, 6000), (0, 3000)), contrast=((0, 255),))
    assert crop.shape == (SIDE, SIDE // 2)
    assert slide.most <= 2**18
    rows, columns = np.indices(crop.shape) * 6000 / SIDE
    assert abs(crop.astype(int) - (rows // 40 + columns // 60)).max() <= 2


@pytest.mark.parametrize("box", [((50, 60), (0, 5)), ((5, 5), (0, 5)), ((-3, 5), (0, 5)), ((0, 5),), ((0, 1),) * 4])
def test_a_box_that_is_not_in_the_image_is_refused(box) -> None:
    with pytest.raises((BadParameter, ImageMismatch)):
        crop_of(grey(), box, margin=0)


def files(folder: Path, count: int = 3) -> list[Path]:
    """Images of one size, all different."""
    folder.mkdir()
    paths = [folder / f"cells {n}.tif" for n in range(count)]
    for n, path in enumerate(paths):
        tifffile.imwrite(path, np.random.default_rng(n).integers(0, 255, (30, 30), np.uint8))
    return paths


def hung(folder: Path, paths: list[Path]) -> Gallery:
    """A gallery with two items of each image."""
    gallery = Gallery.create(folder / "a.gallery", classes=["background", "cell"])
    for path in paths:
        image = open_image(path)
        for start in (0, 10):
            box = ((start, start + 10), (5, 15))
            gallery.add(
                label="cell", crop=crop_of(image, box), position=(start + 5, 10), box=box,
                image=image.fingerprint(), name=image.name, source=image.source,
            )  # fmt: skip
    return gallery


def test_a_renamed_folder_is_found_again_and_that_can_be_undone(tmp_path: Path) -> None:
    with hung(tmp_path, files(tmp_path / "old")) as gallery:
        assert gallery.missing() == []
        (tmp_path / "old").rename(tmp_path / "new name")
        assert len(gallery.missing()) == 6
        assert gallery.relocate(tmp_path) == 6
        assert gallery.missing() == []
        for item in gallery.items():
            assert Path(item.source).parent.name == "new name"
            assert open_image(item.source).fingerprint() == item.image
        assert "found 3 images again" in (gallery.undo() or "")
        assert len(gallery.missing()) == 6
        gallery.redo()
        assert gallery.missing() == []
        (tmp_path / "new name").rename(tmp_path / "newer")
        assert gallery.relocate(tmp_path) == 6


def test_files_with_other_names_and_in_other_formats_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    old = files(tmp_path / "old")
    with hung(tmp_path, old) as gallery:
        new = tmp_path / "deep" / "er"
        new.mkdir(parents=True)
        old[0].rename(new / "b.tif")
        tifffile.imwrite(new / "a.tif", tifffile.imread(old[1]), compression="zlib")  # other bytes, same pixels
        (new / "broken.tif").write_bytes(b"II*\0 and then nothing")
        (new / "cells 2.tif").write_bytes((new / "b.tif").read_bytes())  # the name of a third, with other pixels
        shutil.rmtree(tmp_path / "old")
        assert gallery.relocate(tmp_path / "deep") == 4
        found = {item.name: Path(item.source).name for item in gallery.items()}
        assert found["cells 1"] == "a.tif"
        assert found["cells 0"] in ("b.tif", "cells 2.tif")
        assert [item.name for item in gallery.missing()] == ["cells 2", "cells 2"]


def test_of_equal_files_the_one_with_the_name_is_taken(tmp_path: Path) -> None:
    (path,) = files(tmp_path / "old", 1)
    with hung(tmp_path, [path]) as gallery:
        (tmp_path / "new").mkdir()
        shutil.copy(path, tmp_path / "new" / "a copy.tif")
        path.rename(tmp_path / "new" / path.name)
        gallery.relocate(tmp_path / "new")
        assert Path(gallery.item(1).source).name == path.name


def test_a_deleted_image_is_missing_and_nothing_else_is(tmp_path: Path) -> None:
    paths = files(tmp_path / "old")
    with hung(tmp_path, paths) as gallery:
        before, crops = gallery.items(), [gallery.crop(n) for n in range(1, 7)]
        paths[1].unlink()
        assert [item.id for item in gallery.missing()] == [3, 4]
        assert gallery.items() == before
        for number, crop in enumerate(crops, 1):
            np.testing.assert_array_equal(gallery.crop(number), crop)
        token = gallery.token()
        assert gallery.relocate(tmp_path / "old") == 0
        assert gallery.token() == token
        gallery.relabel([3], "background")
        gallery.merge([4], 6)


def test_slices_and_zarr_folders_are_found_too(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    old = tmp_path / "old"
    old.mkdir()
    data = np.random.default_rng(0).integers(0, 999, (4, 20, 20)).astype(np.uint16)
    stored = zarr.create_array(str(old / "stack.zarr"), shape=data.shape, chunks=(1, 20, 20), dtype=data.dtype)
    stored[:] = data
    image = open_image(old / "stack.zarr", axes="ZYX")
    with Gallery.create(tmp_path / "a.gallery", classes=["cell"]) as gallery:
        one = image.select(Z=2)
        gallery.add(
            label="cell", crop=crop_of(one, ((0, 9), (0, 9))), position=(4, 4), box=((0, 9), (0, 9)),
            image=one.fingerprint(), name="stack", source=image.source, select={"Z": 2},
        )  # fmt: skip
        old.rename(tmp_path / "new")
        assert gallery.relocate(tmp_path) == 1
        assert gallery.item(1).source.endswith("new/stack.zarr")


def test_a_search_can_be_stopped_and_needs_a_folder(tmp_path: Path) -> None:
    with hung(tmp_path, files(tmp_path / "old")) as gallery:
        (tmp_path / "old").rename(tmp_path / "new")
        run = Run()
        run.cancel()
        with pytest.raises(Cancelled):
            gallery.relocate(tmp_path, run)
        assert len(gallery.missing()) == 6
        with pytest.raises(BadParameter, match="no folder"):
            gallery.relocate(tmp_path / "nowhere")


def test_what_never_was_a_file_is_not_missing(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "a.gallery", classes=["cell"]) as gallery:
        for source in ("", "sample:nuclei-2d"):
            gallery.add(
                label="cell", crop=np.zeros((3, 3), np.uint8), position=(1, 1), box=((0, 3), (0, 3)), source=source
            )
        assert gallery.missing() == []


def test_a_path_from_the_folder_of_the_day_holds_from_any_other(tmp_path: Path, monkeypatch) -> None:
    files(tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    with Gallery.create(tmp_path / "a.gallery", classes=["cell"]) as gallery:
        crop = np.zeros((3, 3), np.uint8)
        gallery.add(label="cell", crop=crop, position=(1, 1), box=((0, 3), (0, 3)), source="cells 0.tif")
        monkeypatch.chdir(tmp_path)
        assert gallery.missing() == []
