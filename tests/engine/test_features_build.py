"""Building a bank: every embedding is what it says, once, whatever was interrupted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import measure
from torch import nn

import hand
from seglens.core.errors import BadParameter, Cancelled, ImageMismatch, MissingNeed, ModelMismatch, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Predicted, Target
from seglens.engine.features import FeatureBank, build_bank, check_bank, feature_layer, group_of, region_vector
from seglens.engine.resolve import resolve
from seglens.models.layers import find_layer
from seglens.models.predict import predict


class Blobs(nn.Module):
    """Class 1 above 0.4, class 2 above 0.7; features at half size, so that a cell covers 2 pixels along each axis."""

    divisor = 2

    def __init__(self, dims: int = 2, seed: int = 0) -> None:
        """Fixed random features, beside the intensity for the head."""
        super().__init__()
        self.dims = dims
        self.down = hand.CONV[dims](1, 6, 3, padding=1, stride=2)
        self.head = hand.CONV[dims](1, 3, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
            self.head.weight.copy_(torch.tensor([0.0, 20, 40]).reshape(self.head.weight.shape))
            self.head.bias.copy_(torch.tensor([0.0, -8, -22]))

    def forward(self, x):
        """(N, 1, *space) to (N, 3, *space)."""
        seen = self.down(x)
        return self.head(x + 0 * nn.functional.interpolate(seen[:, :1], x.shape[2:]))


CLASSES = ("background", "cell", "dead")


def blobs(dims: int = 2, **more: object):
    return hand.wrap(Blobs(dims), classes=CLASSES, dims=dims, divisor=2, **more)


def picture(seed: int = 0, size: tuple[int, ...] = (41, 52), name: str | None = None, source: str = "") -> Image:
    """Smooth noise from 0 to 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), 3)
    noise = (noise - noise.min()) / np.ptp(noise)
    return Image(noise.astype(np.float32), "TZYX"[-len(size) :], name=name or f"image {seed}", source=source)


def case_of(model, image):
    return resolve(image, model, Target(1, Predicted()), Run())


@pytest.mark.parametrize("dims", [2, 3])
def test_an_object_is_the_mean_of_the_enlarged_map_over_its_pixels(tmp_path, dims):
    model, image = blobs(dims), picture(size=(41, 52) if dims == 2 else (6, 23, 31))
    bank = build_bank(model, image, tmp_path / "b", layer="down", precision="float32")
    labels = next(predict(model, image, Run())).labels
    numbers = measure.label(labels, background=0, connectivity=1)
    x = torch.from_numpy(image.data)[None, None]
    margins = [n % 2 for n in image.shape]
    padded = np.pad(image.data, [(0, m) for m in margins], mode="edge")
    with torch.no_grad():
        seen = find_layer(model, "down")(torch.from_numpy(padded)[None, None])[0].numpy()
    for axis in range(dims):
        seen = seen.repeat(2, axis + 1)
    seen = seen[(slice(None), *(slice(0, n) for n in x.shape[2:]))]
    assert len(bank) == numbers.max() > 4
    for row, entry in enumerate(bank.entries(range(len(bank)))):
        inside = numbers == numbers[entry.position]
        np.testing.assert_allclose(bank.vectors([row])[0], seen[:, inside].mean(1), rtol=1e-5, atol=1e-6)
        assert entry.pixels == inside.sum()
        assert entry.predicted == CLASSES[labels[entry.position]]
        box = tuple(slice(a, b) for a, b in entry.box)
        assert numbers[box][inside[box]].size == inside.sum()
        assert all(inside.any(tuple(a for a in range(dims) if a != axis)).sum() == b - a
                   for axis, (a, b) in enumerate(entry.box))  # fmt: skip
    assert (bank.info.stride, bank.info.dims, bank.info.axes) == (2, 6, "YX" if dims == 2 else "ZYX")
    bank.close()


def test_a_case_finds_its_objects_at_distance_zero(tmp_path):
    model, images = blobs(), [picture(i) for i in range(3)]
    bank = build_bank(model, images, tmp_path / "b", layer="down")
    case = case_of(model, images[1])
    numbers = measure.label(case.labels, background=0, connectivity=1)
    for row in bank.rows(image=images[1].fingerprint()):
        entry = bank.entries([row])[0]
        found = bank.nearest(region_vector(case, "down", numbers == numbers[entry.position]), 1, metric="euclidean")
        assert (found.rows[0, 0], found.distances[0, 0]) == (row, 0)
        away = bank.nearest(bank.vectors([row]), 3, exclude_groups=bank.groups_of(images[1]))
        assert {e.group for e in bank.entries(away.rows[0])}.isdisjoint({entry.group})
        assert away.excluded == (entry.group,)
    bank.close()


def test_random_weights_change_the_neighbours(tmp_path):
    images = [picture(i) for i in range(4)]
    answers = []
    for seed in (0, 1):
        model = hand.wrap(Blobs(seed=seed), classes=CLASSES, divisor=2)
        bank = build_bank(model, images, tmp_path / f"{seed}", layer="down")
        answers.append(bank.nearest(bank.vectors(), 4).rows[:, 1:])
        bank.close()
    assert (answers[0] != answers[1]).mean() > 0.3


@pytest.mark.parametrize("size", [(150, 130), (20, 50, 44)])
def test_tiles_give_the_same_bank_as_the_whole(tmp_path, size):
    dims = len(size)
    model, image = blobs(dims, halo=(4,) * dims), picture(size=size)
    one = build_bank(model, image, tmp_path / "one", layer="down", precision="float32")
    many = build_bank(model, image, tmp_path / "many", layer="down", precision="float32", tile=48 if dims == 2 else 24)
    assert len(one) > 10
    assert one.entries(range(len(one))) == many.entries(range(len(many)))
    np.testing.assert_allclose(one.vectors(), many.vectors(), rtol=1e-4, atol=1e-5)
    one.close()
    many.close()


def test_large_images_are_looked_at_in_tiles_and_larger_ones_refused(tmp_path, monkeypatch):
    model, image = blobs(halo=(4, 4), tile=(48, 48)), picture(size=(150, 130))
    monkeypatch.setattr("seglens.engine.features._looking.WHOLE", 150 * 130 - 1)
    counting = Stopping(model)
    build_bank(model, image, tmp_path / "tiles", layer="down").close()
    assert counting.count > 20
    monkeypatch.setattr("seglens.engine.features._looking.LARGEST", 150 * 130 - 1)
    with pytest.raises(ImageMismatch, match="150×130 pixels in one plane") as told:
        build_bank(model, image, tmp_path / "refused", layer="down")
    assert "--crop" in told.value.fix


def test_an_image_that_does_not_fit_into_memory_names_tiles(tmp_path):
    def full(*_):
        raise MemoryError

    model = blobs()
    model.module.register_forward_pre_hook(lambda module, inputs: full() if inputs[0].shape[-1] == 52 else None)
    run = Run()
    bank = build_bank(model, [picture(), picture(1, (30, 40))], tmp_path / "b", layer="down", run=run)
    assert [i.name for i in bank.images()] == ["image 1"]
    assert "--tile 512" in bank.failures()[0].fix
    bank.close()


@pytest.mark.parametrize("kind", ["patch", "pixel"])
def test_patches_and_pixels_know_their_truth(tmp_path, kind):
    model, image = blobs(), picture()
    truth = np.random.default_rng(1).integers(0, 3, image.shape)
    bank = build_bank(model, image, tmp_path / "b", layer="down", kind=kind, masks={"image 0": truth},
                      masks_are="classes", per_image=20, side=9 if kind == "patch" else None)  # fmt: skip
    labels = next(predict(model, image, Run())).labels
    entries = bank.entries(range(len(bank)))
    assert len(entries) == 20
    assert len({e.position for e in entries}) == 20
    for entry in entries:
        at = tuple(slice(a, b) for a, b in entry.box)
        index = int(np.bincount(labels[at].ravel()).argmax())
        mine, there = labels[at] == index, truth[at] == index
        assert entry.predicted == CLASSES[index]
        assert entry.truth == CLASSES[int(np.bincount(truth[at].ravel()).argmax())]
        assert entry.iou == pytest.approx((mine & there).sum() / (mine | there).sum())
        assert entry.pixels == labels[at].size <= (81 if kind == "patch" else 1)
    if kind == "pixel":
        assert {e.predicted for e in entries} == set(CLASSES)
    bank.close()


def test_objects_know_the_object_that_they_fit_best(tmp_path):
    model, image = blobs(), picture()
    labels = next(predict(model, image, Run())).labels
    truth = measure.label(ndimage.shift(labels > 0, (2, 3), order=0)) * 3
    bank = build_bank(model, image, tmp_path / "b", layer="down", masks={"image 0": truth}, classes=["cell"])
    numbers = measure.label(np.where(labels == 1, 1, 0), connectivity=1)
    assert len(bank) == numbers.max()
    for entry in bank.entries(range(len(bank))):
        mine = numbers == numbers[entry.position]
        best = max(np.logical_and(mine, truth == i).sum() / np.logical_or(mine, truth == i).sum()
                    for i in np.unique(truth[truth > 0]))  # fmt: skip
        assert entry.iou == pytest.approx(best)
        assert entry.truth == ("cell" if (truth[mine] > 0).mean() > 0.5 else "background")
    assert 0 < np.mean([e.iou for e in bank.entries(range(len(bank)))]) < 1
    bank.close()


def test_masks_from_a_folder_and_images_without_one(tmp_path):
    from tifffile import imwrite

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        imwrite(tmp_path / "images" / f"cell_{i}.tif", picture(i).data)
    model = blobs()
    imwrite(tmp_path / "masks" / "cell_0.tif", next(predict(model, picture(0), Run())).labels)
    run = Run()
    bank = build_bank(model, tmp_path / "images", tmp_path / "b", layer="down", masks=tmp_path / "masks", run=run)
    first, second = bank.images()
    assert (first.name, first.group) == ("cell_0", "images/cell_0.tif")
    assert all(e.iou == 1 and e.truth == e.predicted for e in bank.entries(bank.rows(image=first.fingerprint)))
    assert all(e.iou is None and e.truth is None for e in bank.entries(bank.rows(image=second.fingerprint)))
    assert "There is no mask of cell_1, so what is true there is not known." in run.notes
    bank.close()


class Stopping:
    """Counts passes through the model; stops the run at one of them."""

    def __init__(self, model, run=None, at=-1):
        self.count = 0

        def hook(*_):
            self.count += 1
            if self.count == at:
                run.cancel()

        self.handle = model.module.register_forward_hook(hook)


def test_it_goes_on_where_it_was_stopped(tmp_path):
    model, images = blobs(), [picture(i) for i in range(4)]
    plain = build_bank(model, images, tmp_path / "plain", layer="down")
    run = Run()
    stopping = Stopping(model, run, at=4)  # one pass finds the layers
    with pytest.raises(Cancelled):
        build_bank(model, images, tmp_path / "b", layer="down", run=run)
    stopping.handle.remove()
    half = FeatureBank.open(tmp_path / "b")
    assert [i.name for i in half.images()] == ["image 0", "image 1"]
    assert all(i.finished for i in half.images())
    half.close()
    counting = Stopping(model)
    bank = build_bank(model, images, tmp_path / "b", layer="down")
    counting.handle.remove()
    assert counting.count == 3  # the layers, and two images
    assert bank.entries(range(len(bank))) == plain.entries(range(len(plain)))
    np.testing.assert_array_equal(bank.vectors(), plain.vectors())
    bank.close()


def test_a_half_finished_stack_is_done_again(tmp_path):
    model, image = blobs(), picture(size=(5, 30, 34))
    image = replace(image, axes="TYX")
    plain = build_bank(model, image, tmp_path / "plain", layer="down")
    assert {e.select["T"] for e in plain.entries(range(len(plain)))} == set(range(5))
    run = Run()
    stopping = Stopping(model, run, at=4)
    with pytest.raises(Cancelled):
        build_bank(model, image, tmp_path / "b", layer="down", run=run)
    stopping.handle.remove()
    half = FeatureBank.open(tmp_path / "b")
    assert (len(half), half.images()) == (0, [])
    half.close()
    bank = build_bank(model, image, tmp_path / "b", layer="down")
    np.testing.assert_array_equal(bank.vectors(), plain.vectors())
    bank.close()


def test_killed_within_an_image_nothing_is_there_twice(tmp_path, monkeypatch):
    """As if the process had gone: nobody tidied up."""
    model, image = blobs(), replace(picture(size=(5, 30, 34)), axes="TYX")
    plain = build_bank(model, [picture(9), image], tmp_path / "plain", layer="down")
    run = Run()
    stopping = Stopping(model, run, at=5)
    from seglens.engine.features._table import Table

    with monkeypatch.context() as patch:
        patch.setattr(Table, "drop_unfinished", lambda self: 0)
        with pytest.raises(Cancelled):
            build_bank(model, [picture(9), image], tmp_path / "b", layer="down", run=run)
    stopping.handle.remove()
    half = FeatureBank.open(tmp_path / "b")
    assert [i.finished for i in half.images()] == [True, False]
    half.close()
    bank = build_bank(model, [picture(9), image], tmp_path / "b", layer="down")
    assert bank.entries(range(len(bank))) == plain.entries(range(len(plain)))
    np.testing.assert_array_equal(bank.vectors(), plain.vectors())
    bank.close()


def test_cancel_stops_within_an_image_of_tiles(tmp_path):
    model, run = blobs(halo=(4, 4)), Run()
    stopping = Stopping(model, run, at=3)
    with pytest.raises(Cancelled):
        build_bank(model, picture(size=(150, 130)), tmp_path / "b", layer="down", tile=48, run=run)
    assert stopping.count <= 4
    FeatureBank.open(tmp_path / "b").close()


def test_an_image_that_fails_is_listed_and_tried_again(tmp_path):
    model, run = blobs(), Run()
    flat = Image(np.ones((30, 30), np.float32), "YX", name="flat", source="/x/flat.tif")
    bank = build_bank(model, [flat, picture()], tmp_path / "b", layer="down", run=run)
    assert [(f.name, f.source) for f in bank.failures()] == [("flat", "/x/flat.tif")]
    assert "constant" in bank.failures()[0].what
    assert any("flat was left out" in note for note in run.notes)
    assert [i.name for i in bank.images()] == ["image 0"]
    bank.close()
    mended = picture(3, name="flat", source="/x/flat.tif")
    bank = build_bank(model, [mended, picture()], tmp_path / "b", layer="down")
    assert bank.failures() == []
    assert [i.name for i in bank.images()] == ["image 0", "flat"]
    bank.close()
    with pytest.raises(ImageMismatch, match="constant"):
        build_bank(model, [flat], tmp_path / "c", layer="down")


def test_what_is_no_fault_of_the_image_is_not_swallowed(tmp_path):
    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_bank(blobs(), ["sample:nuclei-2d"], tmp_path / "b", layer="down", opener=broken)


def test_the_same_pixels_are_there_once(tmp_path):
    run = Run()
    bank = build_bank(blobs(), [picture(), picture(name="copy")], tmp_path / "b", layer="down", run=run)
    assert [i.name for i in bank.images()] == ["image 0"]
    assert any("copy has the very pixels" in note for note in run.notes)
    bank.close()


def test_other_settings_need_another_folder(tmp_path):
    build_bank(blobs(), picture(), tmp_path / "b", layer="down").close()
    with pytest.raises(BadParameter, match="kind 'object', not 'pixel'"):
        build_bank(blobs(), picture(), tmp_path / "b", layer="down", kind="pixel")
    other = hand.wrap(Blobs(seed=5), classes=CLASSES, divisor=2)
    with pytest.raises(BadParameter, match="model_sha256"):
        build_bank(other, picture(), tmp_path / "b", layer="down")


def test_two_builds_of_one_bank_do_not_mix(tmp_path):
    from seglens.engine.features._table import connect_lock

    build_bank(blobs(), picture(), tmp_path / "b", layer="down").close()
    lock = connect_lock(tmp_path / "b" / "build.lock")
    with pytest.raises(BadParameter, match="another process"):
        build_bank(blobs(), picture(1), tmp_path / "b", layer="down")
    lock.close()
    build_bank(blobs(), picture(1), tmp_path / "b", layer="down").close()


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"layer": "nowhere"}, UnknownName, "nowhere"),
        ({"kind": "galaxy"}, BadParameter, "galaxy"),
        ({"group": "patient_("}, BadParameter, "regular expression"),
        ({"group": r"patient_(\d)"}, BadParameter, "does not fit"),
        ({"classes": ["dog"]}, UnknownName, "dog"),
        ({"per_image": 0}, BadParameter, "per_image=0"),
        ({"side": 8}, BadParameter, "side=8"),
        ({"masks": "/nowhere/masks"}, ImageMismatch, "no folder of masks"),
        ({"precision": "int8"}, BadParameter, "int8"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(tmp_path, changes, error, told):
    with pytest.raises(error, match=told):
        build_bank(blobs(), picture(), tmp_path / "b", **{"layer": "down", **changes})
    assert not (tmp_path / "b").exists()


def test_groups():
    assert group_of("/data/slide_7/a.tif", "file") == "slide_7/a.tif"
    assert group_of("/data/slide_7/a.tif", "folder") == "slide_7"
    assert group_of("/data/slide_7/a.tif", r"slide_(\d+)") == "7"
    assert group_of("/data/slide_7/a.tif", r"slide_\d") == "slide_7"
    assert group_of("sample:nuclei-2d", "file") == "sample:nuclei-2d"
    assert group_of("/data/a.tif", r"slide_(\d+)", strict=False) is None
    assert group_of("never a file", "file") == "never a file"


def test_a_view_of_an_image_belongs_to_the_group_of_its_file(tmp_path):
    image = picture(source="/data/slide 1/a.tif")
    bank = build_bank(blobs(), [image, picture(1, source="/data/slide 2/a.tif")], tmp_path / "b", layer="down",
                      group="folder")  # fmt: skip
    part = image.crop(Y=slice(3, 20))
    assert part.fingerprint() != image.fingerprint()
    assert bank.groups_of(part) == ("slide 1",)
    assert bank.groups_of(replace(image, source="/moved/elsewhere/a.tif")) == ("slide 1",)
    assert bank.groups_of(picture(7)) == ()
    bank.close()


def test_the_layer_is_what_the_head_reads():
    assert feature_layer(hand.wrap(hand.Deep())) == "mix"
    from seglens.models.nets.unet import UNet

    net = hand.wrap(UNet(1, 3, (4, 8)), classes=CLASSES, divisor=2)
    assert feature_layer(net).startswith("decoder.0")
    sigmoid = hand.wrap(nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 1, 1), nn.Sigmoid()),
                        multilabel=True, head="probabilities")  # fmt: skip
    assert feature_layer(sigmoid) == "0"


def test_a_bank_of_another_model_is_told(tmp_path):
    image = picture()
    bank = build_bank(blobs(), image, tmp_path / "b", layer="down")
    check_bank(bank, case_of(blobs(), image))
    other = hand.wrap(Blobs(seed=5), classes=CLASSES, divisor=2)
    with pytest.raises(ModelMismatch, match="two models cannot be compared"):
        check_bank(bank, case_of(other, image))
    with pytest.raises(MissingNeed) as told:
        check_bank(None, case_of(blobs(), image))
    assert "seglens gallery bank" in told.value.fix
    bank.close()


def test_a_region_has_to_be_one(tmp_path):
    case = case_of(blobs(), picture())
    with pytest.raises(ImageMismatch, match="shape"):
        region_vector(case, "down", np.ones((3, 3)))
    with pytest.raises(ValueError, match="empty"):
        region_vector(case, "down", np.zeros(case.shape))


def test_the_model_is_left_as_it_was(tmp_path):
    model = blobs()
    model.module.train()
    build_bank(model, picture(), tmp_path / "b", layer="down").close()
    assert model.module.training
    assert all(p.requires_grad for p in model.module.parameters())
    assert not model.module.down._forward_hooks


def test_values_too_large_for_half_precision_are_told_not_clipped(tmp_path):
    model = blobs()
    with torch.no_grad():
        model.module.down.weight.mul_(1e6)
    with pytest.raises(BadParameter, match="precision float32"):
        build_bank(model, picture(), tmp_path / "b", layer="down")
