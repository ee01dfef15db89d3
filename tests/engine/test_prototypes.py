"""The prototype layer and what is computed from it: exact sums, edits, records."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import seglens
from hand import Deep, context_image, small_image, wrap
from prototypes import ConstantPrototypes, PlantedPrototypes, tiny
from seglens.core.errors import BadParameter, MissingNeed, ModelMismatch, NoSuchRegion, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.prototypes import (
    PrototypeEdit,
    PrototypeView,
    edited,
    prototypes_of,
    save_edited,
    write_prototypes,
)
from seglens.engine.prototypes.records import lit_box
from seglens.models.nets.proto_unet import ProtoUNet, Similarity
from seglens.models.segmentation import quiet


def logits(model, image):
    x = torch.from_numpy(image.read("C" + model.spec.axes))[None]
    with torch.inference_mode(), quiet(model.module):
        return model.logits(x)[0]


@pytest.fixture
def seen():
    """A network, an image whose sides are no multiples of the divisor, and the view."""
    model, image = tiny(classes=3), small_image(side=30)
    return model, image, PrototypeView(model, image, Run())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("level", [0, 1])
def test_products_add_up_to_the_logit_everywhere(dims, level):
    model, image = tiny(classes=3, dims=dims, level=level), small_image(side=17, dims=dims)
    view, expected = PrototypeView(model, image, Run()), logits(model, image)
    similarity = torch.stack([torch.from_numpy(view.at_image(j)) for j in range(1, 7)])
    total = torch.einsum("kp,p...->k...", view.head.counting().detach(), similarity)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-5)
    spots = {(0,) * dims, tuple(n - 1 for n in view.shape), tuple(n // 3 for n in view.shape)}
    for spot in spots:
        for k in range(3):
            told = sum(row.product for row in view.contributions(spot, of_class=k))
            assert told == pytest.approx(float(expected[(k, *spot)]), abs=1e-5)
            assert all(row.product == pytest.approx(row.similarity * row.weight) for row in view.contributions(spot))
        named = sum(row.product for row in view.contributions(spot))
        assert named == pytest.approx(float(expected[(slice(None), *spot)].max()), abs=1e-5)


def test_the_mask_of_a_view_is_that_of_the_network(seen):
    model, image, view = seen
    np.testing.assert_array_equal(view.labels(), logits(model, image).argmax(0).numpy())
    assert view.labels().dtype == np.uint8


def test_a_pixel_that_is_the_prototype_has_similarity_ln_10000():
    similarity = Similarity(2, 64).eval()
    features = torch.rand(1, 64, 5, 5)
    with torch.no_grad():
        similarity.vectors[0] = features[0, :, 3, 2]
    found = similarity(features).detach()
    assert float(found[0, 0, 3, 2]) == pytest.approx(math.log(1e4), abs=1e-6)
    assert found[0, 0].argmax() == 3 * 5 + 2
    plain = (features[:, None] - similarity.vectors[:, :, None, None]).square().sum(2)
    torch.testing.assert_close(similarity.distances(features).float(), plain, atol=1e-5, rtol=1e-5)


def test_dropping_what_has_no_weight_changes_nothing(seen):
    model, image, _ = seen
    with torch.no_grad():
        model.module.head.weight[:, 2] = 0
    view = PrototypeView(model, image, Run())
    edit = PrototypeEdit(dropped=frozenset({3}))
    np.testing.assert_array_equal(view.logits(edit), view.logits())
    np.testing.assert_allclose(logits(edited(model, edit), image), logits(model, image), rtol=0, atol=1e-6)


def edits(view):
    added = view.taken((7, 9), "cell")
    return {
        "dropped": PrototypeEdit(dropped=frozenset({1, 4})),
        "merged": PrototypeEdit(merged=((2, 1), (1, 5))),
        "relabelled": PrototypeEdit(relabelled=((3, "other"), (1, "cell"))),
        "added": PrototypeEdit(added=(added, view.taken((20, 3), "background"))),
        "all": PrototypeEdit(frozenset({6}), ((1, 2),), ((3, "background"),), (added,)),
    }


@pytest.mark.parametrize("kind", ["dropped", "merged", "relabelled", "added", "all"])
def test_a_live_edit_equals_the_edited_network(seen, kind, tmp_path):
    model, image, view = seen
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    edit = edits(view)[kind]
    other = edited(model, edit)
    expected = logits(other, image)
    np.testing.assert_allclose(view.logits(edit), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(view.labels(edit), expected.argmax(0).numpy())
    told = sum(row.product for row in view.contributions((7, 9), edit, of_class=1))
    assert told == pytest.approx(float(expected[1, 7, 9]), abs=1e-5)
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    assert other.fingerprint() != model.fingerprint()
    # and it comes back from its folder as it was
    again = seglens.load_model(save_edited(model, edit, tmp_path / "out"))
    torch.testing.assert_close(logits(again, image), expected)
    numbers = [p.number for p in prototypes_of(again)]
    assert numbers == [p.number for p in prototypes_of(other)]
    assert [p.label for p in prototypes_of(again)] == [p.label for p in prototypes_of(other)]


def test_what_edits_mean(seen):
    model, image, view = seen
    weight = model.module.head.weight.detach()
    merged = edited(model, PrototypeEdit(merged=((2, 1),))).module.head
    torch.testing.assert_close(merged.counting()[:, 0], weight[:, 0] + weight[:, 1])
    assert not merged.counting()[:, 1].any()
    other = edited(model, PrototypeEdit(relabelled=((1, "cell"),)))
    torch.testing.assert_close(other.module.head.weight[:, 0], weight[[1, 0, 2], 0])
    assert prototypes_of(other)[0].label == "cell"
    added = edited(model, PrototypeEdit(added=(view.taken((7, 9), "cell"),)))
    found = prototypes_of(added)[-1]
    assert (found.number, found.label, found.position) == (7, "cell", (7, 9))
    assert found.image == image.fingerprint()
    assert found.crop.shape == tuple(b - a for a, b in found.box)
    place = PrototypeView(added, image, Run()).similarities[6, 3, 4]
    assert float(place) == pytest.approx(math.log(1e4), abs=1e-3)


def test_the_last_of_a_class_can_go_and_a_first_can_come(seen):
    _, _, view = seen
    none = PrototypeEdit(dropped=frozenset({3, 4}), added=(view.taken((7, 9), "cell"),))
    column = view.contributions((7, 9), none, of_class=1)[0]
    assert (column.number, column.weight) == (7, 1.0)


def test_edits_that_cannot_be_are_refused(seen):
    view = seen[2]
    wrong = [
        PrototypeEdit(dropped=frozenset({0})),
        PrototypeEdit(dropped=frozenset({7})),
        PrototypeEdit(merged=((1, 1),)),
        PrototypeEdit(dropped=frozenset({2}), merged=((1, 2),)),
        PrototypeEdit(added=(view.taken((1, 1), "cell").__class__(np.zeros(5, np.float32), "cell", {}),)),
    ]
    for edit in wrong:
        with pytest.raises(BadParameter):
            view.labels(edit)
    with pytest.raises(UnknownName):
        view.labels(PrototypeEdit(relabelled=((1, "nucleus"),)))
    with pytest.raises(NoSuchRegion):
        view.contributions((40, 2))
    with pytest.raises(BadParameter):
        view.at_image(7)


def test_the_planted_prototype_wins_where_it_was_planted():
    model = wrap(PlantedPrototypes(), classes=("background", "healthy", "infected"))
    image, cell, _ = context_image()
    view = PrototypeView(model, image, Run())
    assert view.contributions((13, 12))[0].number == 3
    assert (view.winners()[cell] == 3).mean() > 0.9
    assert (view.winners()[30:, :40][view.labels()[30:, :40] == 1] == 2).all()
    without = view.labels(PrototypeEdit(dropped=frozenset({3})))
    assert (view.labels()[cell] == 2).mean() > 0.9
    assert (without[cell] == 2).mean() < 0.1


def test_other_networks_are_refused_in_one_sentence():
    model, image = wrap(Deep()), small_image()
    for ask in (prototypes_of, lambda m: PrototypeView(m, image, Run()), lambda m: edited(m, PrototypeEdit())):
        with pytest.raises(MissingNeed, match="hand has no prototype layer"):
            ask(model)

    class Bent(ConstantPrototypes):
        def forward(self, x):
            return super().forward(x).square()

    with pytest.raises(MissingNeed, match="does more behind its prototypes"):
        PrototypeView(wrap(Bent()), image, Run())
    with pytest.raises(MissingNeed, match="cannot be saved"):
        save_edited(wrap(ConstantPrototypes()), PrototypeEdit(), "nowhere")


def test_what_is_known_of_prototypes_goes_into_the_folder_and_comes_back(seen, tmp_path):
    model, _, view = seen
    head = model.module.head
    head.provenance = [{**view.taken((j, 2 * j), "cell").record, "number": j} for j in range(1, 7)]
    folder = save_edited(model, PrototypeEdit(dropped=frozenset({2})), tmp_path / "model")
    again = prototypes_of(seglens.load_model(folder))
    for one, other in zip(again, prototypes_of(edited(model, PrototypeEdit(frozenset({2})))), strict=True):
        assert (one.number, one.image, one.position, one.box) == (other.number, other.image, other.position, other.box)
        np.testing.assert_array_equal(one.crop, other.crop)
    assert [p.number for p in again] == [1, 3, 4, 5, 6]
    with pytest.raises(BadParameter, match="not empty"):
        save_edited(model, PrototypeEdit(), folder)
    (folder / "prototypes.json").write_text("{}")
    with pytest.raises(ModelMismatch, match=r"prototypes\.json"):
        prototypes_of(seglens.load_model(folder))


def test_nothing_is_known_and_nothing_is_written(tmp_path):
    model = tiny()
    assert [p.crop.size for p in prototypes_of(model)] == [0] * 4
    write_prototypes(tmp_path, model.module.head, model.spec)
    assert not list(tmp_path.iterdir())


def test_a_crop_shows_what_is_alike_around_its_place():
    similarity = np.zeros((100, 120))
    similarity[40:75, 50:70] = 5
    similarity[0:10, 0:10] = 9
    (top, bottom), (left, right) = lit_box(similarity, (45, 52))
    assert (top, bottom) == (37, 77)
    assert right - left == 40
    assert left <= 50 < 70 <= right
    assert lit_box(np.ones((8, 200)), (3, 190)) == ((0, 8), (104, 200))


def test_grey_values_of_any_kind_make_a_crop():
    model = tiny()
    image = Image((small_image(side=40).data[0] * 4000).astype(np.uint16), "YX")
    crop = PrototypeView(model, image, Run()).taken((5, 5), "cell").record["crop"]
    assert crop.dtype == np.uint8
    assert np.ptp(crop) > 200


def test_a_volume_shows_the_plane_of_the_place():
    model, image = tiny(dims=3), small_image(dims=3, side=60)
    taken = PrototypeView(model, image, Run()).taken((5, 20, 9), "cell")
    (_, (top, bottom), (left, right)) = taken.record["box"]
    assert taken.record["crop"].shape == (bottom - top, right - left)
    pixels = image.read("CZYX")[0, 5, top:bottom, left:right]
    assert np.corrcoef(taken.record["crop"].ravel(), pixels.ravel())[0, 1] > 0.99
    again = PrototypeView(edited(model, PrototypeEdit(added=(taken,))), image, Run())
    assert float(again.similarities[4].max()) == pytest.approx(math.log(1e4), abs=1e-3)


def test_networks_that_cannot_be_are_refused():
    for wrong in ({"width": 0}, {"per_class": 0}, {"owners": [0, 2]}, {"owners": [-1]}, {"level": 2}):
        with pytest.raises(BadParameter):
            ProtoUNet(1, 2, [4, 8, 8], **wrong)
