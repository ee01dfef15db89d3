"""Galleries of networks and of banks: what they take, what edits do to the mask, who explains what, what leaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from banks import attribute_bank, attribute_image, attribute_model
from hand import context_image, wrap
from prototypes import PlantedPrototypes, tiny
from seglens.core.errors import BadParameter, ImageMismatch, MissingNeed, ModelMismatch, NoSuchRegion, UnknownName
from seglens.core.files import open_image
from seglens.core.run import Run
from seglens.core.target import Box, Object, Painted, Point
from seglens.engine.features import region_vector
from seglens.engine.prototypes import PrototypeEdit, PrototypeView, save_edited
from seglens.engine.resolve import resolve
from seglens.models.loaders import load_model
from seglens.workspace.gallery import (
    Gallery,
    add_region,
    coverage,
    crop_of,
    edit_of,
    gallery_of_bank,
    gallery_of_model,
    leaks,
    nearest_items,
    open_as,
    shares,
    typical,
)

CLASSES = ("background", "healthy", "infected")


@pytest.fixture(scope="module")
def planted():
    """A network whose prototypes are known, and its image."""
    model = wrap(PlantedPrototypes(), classes=CLASSES)
    return model, context_image()[0]


@pytest.fixture
def network(planted, tmp_path: Path):
    """A gallery of that network."""
    with gallery_of_model(planted[0], tmp_path / "network.gallery") as gallery:
        yield gallery


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory):
    """A bank of cells with and without two attributes, of images that lie in files."""
    folder = tmp_path_factory.mktemp("bank")
    model = attribute_model()
    made, first, second = attribute_bank(folder, model, images=4, save=True)
    yield model, made, first, second, folder
    made.close()


def test_a_network_s_prototypes_become_items(planted, network: Gallery) -> None:
    model, _ = planted
    items = network.items()
    assert [(i.prototype, i.label) for i in items] == [
        (1, "background"), (2, "healthy"), (3, "infected"), (4, "infected"),
    ]  # fmt: skip
    np.testing.assert_array_equal(network.vector(3), [0, 1, 0])
    assert network.info.classes == CLASSES
    assert network.info.model_sha256 == model.fingerprint()
    assert items[0].position == ()
    with pytest.raises(NoSuchRegion, match="no picture"):
        network.crop(1)


def test_where_a_prototype_comes_from_is_taken_along(tmp_path: Path) -> None:
    np.save(tmp_path / "cells.npy", np.random.default_rng(0).random((32, 40)).astype(np.float32))
    image, model = open_image(tmp_path / "cells.npy"), tiny()
    taken = PrototypeView(model, image, Run()).taken((20, 11), "cell")
    save_edited(model, PrototypeEdit(added=(taken,)), tmp_path / "edited")
    with gallery_of_model(load_model(str(tmp_path / "edited"), device="cpu"), tmp_path / "a.gallery") as gallery:
        item = gallery.items()[-1]
        assert (item.label, item.position, item.image) == ("cell", (20, 11), image.fingerprint())
        assert item.source == str(tmp_path / "cells.npy")
        assert item.group.endswith("/cells.npy")
        np.testing.assert_array_equal(gallery.crop(item.id), taken.record["crop"])
        assert gallery.missing() == []
        assert leaks(gallery, image) == [item]


def test_a_network_without_prototypes_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingNeed, match="no prototype layer"):
        gallery_of_model(attribute_model(), tmp_path / "a.gallery")
    assert not (tmp_path / "a.gallery").exists()


def test_edits_of_a_gallery_are_edits_of_its_network(planted, network: Gallery) -> None:
    model, image = planted
    view = PrototypeView(model, image, Run())
    np.testing.assert_array_equal(view.labels(edit_of(network, model)[0]), view.labels())
    network.drop([3])
    network.relabel([4], "healthy")
    edit, numbers = edit_of(network, model)
    assert (edit.dropped, edit.merged, edit.relabelled) == (frozenset({3}), (), ((4, "healthy"),))
    assert numbers == {1: 1, 2: 2, 3: 3, 4: 4}
    np.testing.assert_array_equal(view.labels(edit), view.labels(PrototypeEdit(frozenset({3}), (), ((4, "healthy"),))))
    assert not (view.labels(edit) == 2).any()
    network.undo()
    network.undo()
    np.testing.assert_array_equal(view.labels(edit_of(network, model)[0]), view.labels())
    network.merge([4], 3)
    assert edit_of(network, model)[0].merged == ((4, 3),)
    network.drop([3])
    assert edit_of(network, model)[0].dropped == {3, 4}


def test_what_a_person_adds_is_a_prototype_more(planted, network: Gallery) -> None:
    model, image = planted
    view = PrototypeView(model, image, Run())
    at = tuple(int(n) for n in np.argwhere(view.labels() == 1)[0])
    number = add_region(network, image, Point(at), label="infected", model=model)
    edit, numbers = edit_of(network, model)
    assert numbers[5] == number
    np.testing.assert_array_equal(edit.added[0].vector, view.taken(at, "infected").vector)
    np.testing.assert_array_equal(edit.added[0].record["crop"], network.crop(number))
    network.drop([number])
    assert edit_of(network, model)[0].added == ()


def test_the_shares_of_an_image_are_those_of_its_pixels(planted, network: Gallery) -> None:
    model, image = planted
    labels = PrototypeView(model, image, Run()).labels()
    found = coverage(network, model, image)
    assert sum(part.pixels for part in found) == labels.size
    assert sum(part.share for part in found) == pytest.approx(1)
    by_item = {part.item: part.pixels for part in found}
    assert by_item[3] > 0.9 * (labels == 2).sum() > 0  # the planted one explains what is infected
    assert 4 not in by_item
    network.drop([3])
    assert 3 not in {part.item for part in coverage(network, model, image)}


def test_shares_by_hand() -> None:
    found = shares(np.array([[2, 2, 0], [7, 2, 2]]))
    assert [(s.item, s.pixels) for s in found] == [(2, 4), (7, 1), (None, 1)]
    assert [s.share for s in found] == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    weighed = shares(np.array([1, 2, 3]), np.array([10, 0, 5]), items={1: 40, 3: 40})
    assert [(s.item, s.pixels, s.share) for s in weighed] == [(40, 15, 1.0)]
    assert shares(np.zeros(0, int)) == []


def test_a_gallery_of_another_network_is_refused(planted, network: Gallery) -> None:
    with pytest.raises(ModelMismatch, match="not of this"):
        edit_of(network, tiny())
    with pytest.raises(ModelMismatch, match="not of this"):
        coverage(network, tiny(), planted[1])
    with pytest.raises(ModelMismatch, match="not of this"):
        add_region(network, planted[1], Point((3, 3)), model=tiny())


def test_entries_of_a_bank_become_items(bank, tmp_path: Path) -> None:
    _, made, *_ = bank
    rows = [20, 3, 11]
    with gallery_of_bank(made, rows, tmp_path / "a.gallery") as gallery:
        assert len(gallery) == 3
        for item, row in zip(gallery.items(), sorted(rows), strict=True):
            (entry,) = made.entries([row])
            assert (item.label, item.position, item.box) == (entry.predicted, entry.position, entry.box)
            assert (item.image, item.source, item.group) == (entry.image, entry.source, entry.group)
            np.testing.assert_array_equal(gallery.vector(item.id), made.vectors([row])[0])
            image = open_image(entry.source, axes="CYX")
            assert gallery.crop(item.id).shape[:2] == crop_of(image, entry.box, position=entry.position).shape[:2]
        assert gallery.info.layer == made.info.layer
        assert gallery.history()[0].what == f"took 3 entries of {made.folder.name}"


def test_an_image_that_is_gone_costs_the_picture_and_nothing_else(bank, tmp_path: Path) -> None:
    _, made, _, _, folder = bank
    run = Run()
    (folder / "image1.npy").rename(folder / "gone.npy")
    try:
        with gallery_of_bank(made, range(len(made)), tmp_path / "a.gallery", run=run) as gallery:
            assert len(gallery) == len(made)
            assert [gallery.png(i.id) is None for i in gallery.items()].count(True) == 9
            assert len(gallery.missing()) == 9
            assert gallery.relocate(folder) == 9
    finally:
        (folder / "gone.npy").rename(folder / "image1.npy")
    assert [note for note in run.notes if "image1" in note]


def test_a_file_that_changed_gives_no_picture_rather_than_a_wrong_one(bank, tmp_path: Path) -> None:
    _, made, _, _, folder = bank
    kept, run = (folder / "image1.npy").read_bytes(), Run()
    np.save(folder / "image1.npy", np.zeros((3, 36, 36), np.float32))
    try:
        with gallery_of_bank(made, range(8, 12), tmp_path / "a.gallery", run=run) as gallery:
            assert [gallery.png(i.id) is None for i in gallery.items()] == [False, True, True, True]
        assert "does not hold the pixels" in run.notes[0]
    finally:
        (folder / "image1.npy").write_bytes(kept)


@pytest.mark.parametrize(
    ("axes", "channels"), [("TYX", None), ("CYX", (0,)), ("YXC", None), ("ZYX", None), ("CYX", (0, 0, 0))]
)
def test_an_image_is_opened_again_as_it_was_looked_at(tmp_path: Path, axes: str, channels) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((5, 20, 3)))
    image = open_image(tmp_path / "a.npy", axes=axes)
    image = image if channels is None else image.with_channels(channels)
    again = open_as(str(tmp_path / "a.npy"), image.fingerprint(), "YX")
    assert (again.axes, again.channels) == (axes, channels)
    with pytest.raises(ImageMismatch, match="does not hold"):
        open_as(str(tmp_path / "a.npy"), "0" * 64, "YX")


def test_what_is_typical_shows_all_kinds_and_is_the_same_again(bank) -> None:
    _, made, first, second, _ = bank
    rows = typical(made, 4)
    assert len(rows) == len(set(rows)) == 4
    assert {(bool(first[row]), bool(second[row])) for row in rows} == {
        (bool(a), bool(b)) for a, b in zip(first, second, strict=True)
    }
    assert typical(made, 4) == rows
    run = Run()
    assert len(typical(made, 3, most=10, run=run)) == 3
    assert "among 10" in run.notes[0]
    assert len(typical(made, 1000)) == len(made)
    with pytest.raises(BadParameter, match="0 of each"):
        typical(made, 0)


def test_objects_count_for_the_nearest_item_that_is_kept(bank, tmp_path: Path) -> None:
    model, made, first, *_ = bank
    with_1, without = (int(np.flatnonzero(first == wanted)[0]) for wanted in (True, False))
    with gallery_of_bank(made, sorted([with_1, without]), tmp_path / "a.gallery") as gallery:
        yes, no = (1, 2) if with_1 < without else (2, 1)
        won = nearest_items(gallery, made.vectors())
        assert won[with_1] == yes
        assert won[without] == no
        image, numbers, _, _ = attribute_image(2)
        found = coverage(gallery, model, image)
        expected = {n: int((won[made.rows(image=image.fingerprint())] == n).sum()) * 36 for n in (1, 2)}
        assert {part.item: part.pixels for part in found} == {n: count for n, count in expected.items() if count}
        assert sum(part.pixels for part in found) == (numbers > 0).sum()
        gallery.merge([yes], no)
        assert set(nearest_items(gallery, made.vectors()).tolist()) == {no}
        gallery.keep([yes])
        gallery.drop([no])
        assert set(nearest_items(gallery, made.vectors()).tolist()) == {yes}
        gallery.drop([yes])
        with pytest.raises(MissingNeed, match="16 numbers"):
            nearest_items(gallery, made.vectors())


def test_what_comes_from_the_asked_image_is_found_under_any_name(bank, tmp_path: Path) -> None:
    _, made, _, _, folder = bank
    with gallery_of_bank(made, [0, 9, 10, 18], tmp_path / "a.gallery") as gallery:
        image = open_image(folder / "image1.npy", axes="CYX")
        assert [item.id for item in leaks(gallery, image)] == [2, 3]
        (tmp_path / "other.npy").write_bytes((folder / "image1.npy").read_bytes())
        assert [item.id for item in leaks(gallery, open_image(tmp_path / "other.npy", axes="CYX"))] == [2, 3]
        assert [item.id for item in leaks(gallery, image.fingerprint())] == [2, 3]
        assert [item.id for item in leaks(gallery, "", group=gallery.item(4).group)] == [4]
        gallery.drop([2])
        assert [item.id for item in leaks(gallery, image)] == [3]
        np.save(tmp_path / "new.npy", np.random.default_rng(9).random((3, 36, 36)))
        assert leaks(gallery, open_image(tmp_path / "new.npy", axes="CYX")) == []


def test_an_object_comes_with_its_class_box_and_vector(bank, tmp_path: Path) -> None:
    model, made, _, _, folder = bank
    with gallery_of_bank(made, [0], tmp_path / "a.gallery") as gallery:
        whole = open_image(folder / "image1.npy", axes="CYX")
        number = add_region(gallery, whole, Object(at=(5, 6)), model=model, note="mine")
        item, (entry,) = gallery.item(number), made.entries(made.rows(image=whole.fingerprint())[:1])
        assert (item.label, item.box, item.image, item.group) == ("cell", entry.box, entry.image, entry.group)
        assert item.note == "mine"
        np.testing.assert_allclose(gallery.vector(number), made.vectors([9])[0], rtol=2e-3)
        part = whole.crop(Y=slice(12, 36), X=slice(2, 36))
        other = gallery.item(add_region(gallery, whole, Object(at=(5, 6)), view=part, model=model))
        assert other.box == ((15, 21), (3, 9))  # counted in the whole image


def test_without_a_model_the_person_draws_and_names(tmp_path: Path) -> None:
    image, cell, _ = context_image(3)
    with Gallery.create(tmp_path / "a.gallery", classes=CLASSES, axes="ZYX") as gallery:
        painted = gallery.item(add_region(gallery, image, Painted(cell), label="healthy"))
        assert painted.box == tuple((int(i.min()), int(i.max()) + 1) for i in np.nonzero(cell))
        assert cell[painted.position]
        box = gallery.item(add_region(gallery, image, Box((1, 2, 3), (4, 90, 13)), label="healthy"))
        assert (box.position, box.box) == ((2, 25, 8), ((1, 4), (2, 48), (3, 13)))
        point = gallery.item(add_region(gallery, image, Point((3, 13, 12)), label="healthy"))
        assert point.position == (3, 13, 12)
        assert gallery.vector(point.id) is None
        for region, label, error in [
            (Point((0, 0, 99)), "healthy", NoSuchRegion),
            (Box((0, 0, 0), (0, 5, 5)), "healthy", NoSuchRegion),
            (Point((0, 0, 0)), None, BadParameter),
            (Point((0, 0, 0)), "helthy", UnknownName),
            (Object(1), "healthy", MissingNeed),
        ]:
            with pytest.raises(error):
                add_region(gallery, image, region, label=label)
        assert len(gallery) == 3


def test_of_a_frame_of_a_stack_the_item_knows_the_frame(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 20, 20)).astype(np.uint8)
    np.save(tmp_path / "stack.npy", data)
    whole = open_image(tmp_path / "stack.npy", axes="TYX")
    with Gallery.create(tmp_path / "a.gallery", classes=CLASSES) as gallery:
        view = whole.select(T=2)
        number = add_region(gallery, whole, Box((2, 2), (9, 9)), view=view, select={"T": 2}, label="healthy")
        item = gallery.item(number)
        assert (item.select, item.image) == ({"T": 2}, whole.fingerprint())
        np.testing.assert_array_equal(gallery.crop(number), crop_of(view, item.box))


def test_a_painted_region_has_the_vector_that_a_bank_would_give_it(bank, tmp_path: Path) -> None:
    model, made, _, _, folder = bank
    whole = open_image(folder / "image0.npy", axes="CYX")
    mask = np.zeros((36, 36), bool)
    mask[4:8, 4:8] = True
    with gallery_of_bank(made, [0], tmp_path / "a.gallery") as gallery:
        number = add_region(gallery, whole, Painted(mask), label="cell", model=model)
        from seglens.core.target import Target

        case = resolve(whole, model, Target("cell", Painted(mask)), Run())
        np.testing.assert_array_equal(gallery.vector(number), region_vector(case, made.info.layer, mask))
