"""Where else something like an example is, and where in a region its place is."""

import numpy as np
import pytest
import torch

from hand import context_image, wrap
from prototypes import PlantedPrototypes
from seglens.core.errors import ModelMismatch, NoSuchRegion
from seglens.core.run import Run
from seglens.core.target import Object, Painted, Target
from seglens.engine.features import region_vector
from seglens.engine.features.likeness import likeness, place_of, region_in
from seglens.engine.resolve import resolve


@pytest.fixture
def case():
    """An image with cells and markers, asked about nothing special."""
    model = wrap(PlantedPrototypes(), classes=("background", "healthy", "infected"))
    return resolve(context_image()[0], model, Target(), Run())


def test_a_pixel_is_like_itself_and_what_has_its_channels_in_the_same_proportion(case):
    activation = case.activation("features")[0].numpy()
    y, x = np.unravel_index(int(activation.sum(0).argmax()), case.shape)
    vector = activation[:, y, x]
    found = likeness(case, "features", vector)
    assert found.shape == case.shape
    assert found[y, x] == pytest.approx(1, abs=1e-6)
    norm = np.linalg.norm(activation, axis=0) * np.linalg.norm(vector)
    expected = np.einsum("c,cyx->yx", vector, activation) / np.maximum(norm, 1e-8)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # a longer vector asks the same
    np.testing.assert_allclose(likeness(case, "features", 7 * vector), found, atol=1e-6)


def test_another_layer_is_refused(case):
    with pytest.raises(ModelMismatch, match="9 numbers"):
        likeness(case, "features", np.ones(9))


def test_a_region_is_that_of_the_case(case):
    mask = np.zeros(case.shape, np.int8)
    mask[3:9, 4:8] = 1
    scores = case.logits[0].numpy()
    region, name = region_in(scores, Target("healthy", Painted(mask)), case.model.spec)
    np.testing.assert_array_equal(region, mask > 0)
    assert name == "healthy"
    labels = torch.as_tensor(scores).argmax(0).numpy()
    at = tuple(int(n) for n in np.argwhere(labels > 0)[0])
    asked = Target(None, Object(at=at))
    again = resolve(case.image, case.model, asked, Run())
    region, name = region_in(scores, asked, case.model.spec)
    np.testing.assert_array_equal(region, again.target.region)
    assert name == again.target.name
    assert region_vector(again, "features", region).shape == (case.activation("features").shape[1],)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_place_lies_deep_inside_the_largest_part(dims):
    mask = np.zeros((24,) * dims, bool)
    mask[(slice(2, 4),) * dims] = True
    mask[(slice(10, 21),) * dims] = True
    mask[(15,) * dims] = False  # a hole, where the middle of the box of the large part is
    at, box = place_of(mask)
    assert mask[at]
    assert all(10 <= n < 21 for n in at)
    assert box == ((2, 21),) * dims


def test_a_region_at_the_rim_and_none_at_all():
    mask = np.zeros((6, 8), int)
    mask[:, 0] = 3
    at, box = place_of(mask)
    assert at[1] == 0
    assert box == ((0, 6), (0, 1))
    with pytest.raises(NoSuchRegion):
        place_of(np.zeros((4, 4)))
