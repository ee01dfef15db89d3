"""Files become images with axes and pixel size kept; broken ones say what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from seglens.core.errors import ImageMismatch, NoSuchRegion
from seglens.core.files import image_files, open_image, read_mask
from seglens.core.readers import tiff, unit_name
from seglens.core.readers.tiff import known_axes

GREY = np.arange(12 * 17, dtype=np.uint16).reshape(12, 17)
COLOUR = np.arange(12 * 17 * 3, dtype=np.uint8).reshape(12, 17, 3)
STACK = np.arange(5 * 12 * 17, dtype=np.uint16).reshape(5, 12, 17)


def test_ome_tiff_keeps_axes_and_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "cells.ome.tif"
    sizes = {f"PhysicalSize{a}": s for a, s in {"Z": 2.0, "Y": 0.5, "X": 0.25}.items()}
    data = np.arange(2 * 3 * 5 * 12 * 17, dtype=np.uint16).reshape(2, 3, 5, 12, 17)
    tifffile.imwrite(path, data, photometric="minisblack", metadata={"axes": "TCZYX", **sizes})
    image = open_image(path)
    assert (image.axes, image.name, image.unit, image.source) == ("TCZYX", "cells", "micrometer", str(path))
    assert image.scale("ZYX") == (2.0, 0.5, 0.25)
    assert np.array_equal(image.select(T=1).read("CZYX"), data[1])


def test_ome_tiff_in_other_units(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX"} | {f"PhysicalSize{a}": 3.0 for a in "YX"} | {f"PhysicalSize{a}Unit": "nm" for a in "YX"}
    tifffile.imwrite(path, GREY, metadata=metadata)
    assert (open_image(path).unit, open_image(path).scale("YX")) == ("nanometer", (3.0, 3.0))


def test_imagej_tiff_keeps_axes_spacing_and_unit(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX", "spacing": 1.5, "unit": "um"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    image = open_image(path)
    assert (image.axes, image.unit) == ("ZYX", "micrometer")
    assert image.scale("ZYX") == pytest.approx((1.5, 0.5, 0.25))


def test_plain_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", COLOUR, photometric="rgb", metadata=None)
    tifffile.imwrite(tmp_path / "pages.tif", STACK, photometric="minisblack", metadata=None)
    rgb, pages = open_image(tmp_path / "rgb.tif"), open_image(tmp_path / "pages.tif")
    assert (rgb.axes, pages.axes, rgb.unit, dict(rgb.pixel_size)) == ("YXC", "ZYX", "pixel", {})
    assert np.array_equal(rgb.read("YXC"), COLOUR)
    assert np.array_equal(pages.read("ZYX"), STACK)


def test_tiff_with_transparency_has_three_channels(tmp_path: Path) -> None:
    path = tmp_path / "rgba.tif"
    tifffile.imwrite(path, np.dstack([COLOUR, COLOUR[..., :1]]), photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(open_image(path).read("YXC"), COLOUR)


def test_centimetres_are_a_size_and_inches_are_not(tmp_path: Path) -> None:
    for unit in ("centimeter", "inch"):
        tifffile.imwrite(tmp_path / f"{unit}.tif", GREY, resolution=(20000, 20000), resolutionunit=unit)
    assert open_image(tmp_path / "centimeter.tif").scale("YX") == pytest.approx((0.5, 0.5))
    assert open_image(tmp_path / "inch.tif").unit == "pixel"


def test_big_tiff_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "LAZY", 100)
    path = tmp_path / "big.tif"
    data = np.random.default_rng(0).integers(0, 255, (256, 320), dtype=np.uint8)
    tifffile.imwrite(path, data, tile=(64, 64))
    image = open_image(path)
    assert not isinstance(image.data, np.ndarray)
    assert np.array_equal(image.read("YX", Y=slice(70, 90), X=slice(10, 200)), data[70:90, 10:200])


@pytest.mark.parametrize(
    ("theirs", "ours"), [("YXS", "YXC"), ("QYX", "ZYX"), ("IYX", "ZYX"), ("QZYX", "TZYX"), ("CYXS", None)]
)
def test_letters_of_tiff(theirs: str, ours: str | None) -> None:
    assert known_axes(theirs) == ours


@pytest.mark.parametrize(
    ("ending", "mode"),
    [("png", m) for m in ("L", "RGB", "RGBA", "P", "1", "LA", "I;16")] + [("jpg", m) for m in ("L", "RGB", "CMYK")],
)
def test_pictures(tmp_path: Path, mode: str, ending: str) -> None:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(GREY) if mode == "I;16" else Pillow.fromarray(COLOUR).convert(mode)
    path = tmp_path / f"a.{ending}"
    picture.save(path)
    image = open_image(path)
    colour = mode in ("RGB", "RGBA", "P", "CMYK")
    assert (image.axes, image.space("YX"), image.size("C")) == ("YXC" if colour else "YX", (12, 17), 3 if colour else 1)
    if mode == "RGBA":
        assert np.array_equal(image.read("YXC"), COLOUR)
    if mode == "I;16":
        assert image.dtype == np.uint16
        assert np.array_equal(image.read("YX"), GREY)


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_level_0_with_scale(tmp_path: Path, version: int) -> None:
    import zarr

    path = tmp_path / "a.ome.zarr"
    group = zarr.create_group(str(path), zarr_format=version)
    for level, factor in enumerate((1, 2)):
        array = group.create_array(str(level), shape=(5, 12, 17 // factor), chunks=(1, 8, 8), dtype="u2")
        array[:] = STACK[:, :, : 17 // factor]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    levels = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [2, 0.5, 0.5 * f]}]}
        for n, f in enumerate((1, 2))
    ]
    scales = [{"axes": axes, "datasets": levels, "version": "0.4"}]
    group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"version": "0.5", "multiscales": scales}})
    image = open_image(path)
    assert (image.axes, image.scale("ZYX"), image.unit, image.name) == ("ZYX", (2, 0.5, 0.5), "micrometer", "a")
    assert isinstance(image.data, zarr.Array)
    assert np.array_equal(image.read("ZYX"), STACK)


def test_plain_zarr_arrays_and_groups(tmp_path: Path) -> None:
    import zarr

    told = zarr.create_array(str(tmp_path / "told.zarr"), data=STACK, dimension_names=["t", "y", "x"])
    zarr.create_array(str(tmp_path / "untold.zarr"), data=STACK)
    zarr.create_group(str(tmp_path / "group.zarr")).create_array("inner", data=STACK)
    assert told.shape == STACK.shape
    assert open_image(tmp_path / "told.zarr").axes == "TYX"
    assert open_image(tmp_path / "untold.zarr").axes == "ZYX"
    assert open_image(tmp_path / "group.zarr" / "inner").axes == "ZYX"
    with pytest.raises(ImageMismatch) as caught:
        open_image(tmp_path / "group.zarr")
    assert "group.zarr/inner" in caught.value.fix


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_turns_axes_and_keeps_the_voxel_size(tmp_path: Path, ending: str) -> None:
    import nibabel

    path = tmp_path / f"brain{ending}"
    file = nibabel.Nifti1Image(STACK.transpose(2, 1, 0), np.diag([0.5, 0.75, 3.0, 1.0]))
    file.header.set_xyzt_units("mm")
    nibabel.save(file, path)
    image = open_image(path)
    assert (image.axes, image.unit, image.name) == ("ZYX", "millimeter", "brain")
    assert image.scale("ZYX") == (3.0, 0.75, 0.5)
    assert np.array_equal(image.read("ZYX"), STACK)


def test_npy_and_axes_by_hand(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 3, 4, 5), np.uint8))
    assert open_image(tmp_path / "a.npy").axes == "ZYX"
    assert open_image(tmp_path / "a.npy", axes="tyx").axes == "TYX"
    assert open_image(tmp_path / "b.npy", axes="TCZYX").axes == "TCZYX"
    with pytest.raises(ImageMismatch, match="cannot be guessed"):
        open_image(tmp_path / "b.npy")
    with pytest.raises(ImageMismatch, match="do not fit"):
        open_image(tmp_path / "a.npy", axes="YX")


def _missing(folder: Path) -> Path:
    (folder / "image.png").write_bytes(b"x")
    return folder / "imag.png"


def _nothing(folder: Path) -> Path:
    (folder / "readme.txt").write_text("no images here")
    return folder


def _filled(folder: Path) -> Path:
    tifffile.imwrite(folder / "one.tif", GREY)
    return folder


def _bytes(name: str, content: bytes) -> object:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _truncated(name: str) -> object:
    def make(folder: Path) -> Path:
        from PIL import Image as Pillow

        path = folder / name
        noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
        if name.endswith("tif"):
            tifffile.imwrite(path, noise)
        elif name.endswith("npy"):
            np.save(path, noise)
        elif "nii" in name:
            import nibabel

            nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
        else:
            Pillow.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return make


def _objects(folder: Path) -> Path:
    np.save(folder / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return folder / "pickle.npy"


@pytest.mark.parametrize(
    ("make", "what", "fix"),
    [
        (_missing, "There is no file", "Did you mean"),
        (_nothing, "holds no images", "TIFF, PNG"),
        (_filled, "is a folder", "one.tif"),
        (_bytes("a.txt", b"hello"), "kind that SegLens does not read", "Convert it"),
        (_bytes("noending", b"hello"), "no ending", "Convert it"),
        (_bytes("empty.tif", b""), "is empty", "again"),
        (_bytes("a.tif", b"hello"), "cannot be read", "complete"),
        (_bytes("a.png", b"hello"), "cannot be read", "complete"),
        (_bytes("a.nii", b"hello"), "cannot be read", "complete"),
        (_bytes("a.npy", b"hello"), "cannot be read", "complete"),
        (_bytes("a.zarr", b"hello"), "cannot be read", "complete"),
        (_objects, "cannot be read", "complete"),
        *[
            (_truncated(f"cut.{e}"), "cannot be read", "complete")
            for e in ("tif", "png", "jpg", "npy", "nii", "nii.gz")
        ],
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, make: object, what: str, fix: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(ImageMismatch) as caught:
        open_image(path)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.tif", "a.tif"):
        tifffile.imwrite(tmp_path / name, GREY)
    (tmp_path / "notes.txt").write_text("")
    assert [p.name for p in image_files(tmp_path)] == ["a.tif", "b.tif"]


def test_masks(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    mask = np.zeros((12, 17), np.uint8)
    mask[3:5, 4:9] = 7
    Pillow.fromarray(mask).save(tmp_path / "grey.png")
    Pillow.fromarray(np.dstack([mask] * 3)).save(tmp_path / "rgb.png")
    palette = Pillow.fromarray(mask).convert("P")
    palette.putpalette([255, 255, 255] + [0, 0, 0] * 255)  # background white: only the number tells
    palette.save(tmp_path / "palette.png")
    np.save(tmp_path / "signed.npy", -mask.astype(np.int16))
    tifffile.imwrite(tmp_path / "float.tif", mask[None].astype(np.float32))
    for name in ("grey.png", "rgb.png", "palette.png", "float.tif"):
        assert np.array_equal(read_mask(tmp_path / name, (12, 17)), mask > 0), name
    assert np.array_equal(read_mask(tmp_path / "signed.npy", (12, 17)), -(mask > 0).astype(np.int8))


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.ones((12, 16)))
    np.save(tmp_path / "empty.npy", np.zeros((12, 17)))
    with pytest.raises(ImageMismatch, match="12×16 pixels, the image has 12×17"):
        read_mask(tmp_path / "other.npy", (12, 17))
    with pytest.raises(NoSuchRegion, match="is empty"):
        read_mask(tmp_path / "empty.npy", (12, 17))


@pytest.mark.parametrize("text", ["µm", "μm", "um", "micron", "\\u00B5m", "Micrometre"])
def test_names_of_units(text: str) -> None:
    assert unit_name(text) == "micrometer"
    assert unit_name(None) == "pixel"
