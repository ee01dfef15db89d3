"""The target is frozen on the first pass of whoever asks: the same answers as with a pass of its own, for one less."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import Deep, small_image, wrap
from seglens.core.errors import NoSuchRegion, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Border, Box, Object, Painted, Point, Predicted, Target
from seglens.engine import reach
from seglens.engine.clean import Clean
from seglens.engine.fast import at_rest
from seglens.engine.reach import find_reach
from seglens.engine.resolve import resolve
from seglens.engine.rules import COMPOSITES, Backprop, Rescale, Trace, summed
from seglens.models.nets.unet import UNet
from seglens.session import explain

CLASSES = ("background", "cell", "other")
REGIONS = {
    "class": Predicted(),
    "class, live": Predicted(live=True),
    "rim": Border(),
    "painted": Painted(np.eye(24, 27) > 0),
    "point": Point((5, 6)),
    "box": Box((3, 4), (20, 20), predicted_only=False),
}
ASK = {
    "gradient": lambda case: case.gradient(),
    "layer": lambda case: torch.cat([t.flatten() for t in case.activations("features")]),
    "activation": lambda case: case.activation("features"),
    "guided": lambda case: Trace(case, Backprop("guided")).back().values,
    "relevance": lambda case: summed(case, COMPOSITES["epsilon-plus"])[0].values,
    "DeepLift": lambda case: summed(case, Rescale(), torch.zeros_like(case.x))[0].values,
}


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch, tmp_path):
    """Whether a pass may be the first one hangs on whether another test has measured the reach of this network."""
    monkeypatch.setattr(reach, "_KNOWN", {})
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path))


def model(dims=2):
    return wrap(Deep(classes=3, dims=dims), dims=dims, classes=CLASSES)


def asked(target, dims=2, *, later, ask):
    own, run = model(dims), Run()
    with at_rest(own):
        case = resolve(small_image(dims=dims), own, target, run, later=later)
        found = ASK[ask](case)
    return found, case, run


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("ask", ASK)
def test_the_answer_is_that_of_a_target_frozen_before(ask, region):
    target = Target(None, REGIONS[region])
    there, known, before = asked(target, later=False, ask=ask)
    here, case, run = asked(target, later=True, ask=ask)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-6 * float(there.abs().max()))
    torch.testing.assert_close(case.logits, known.logits, rtol=0, atol=1e-5)
    assert torch.equal(case.target.weights, known.target.weights)
    assert case.target.name == known.target.name
    assert case.clean_score == pytest.approx(known.clean_score, rel=1e-5)
    # of the second record that DeepLift makes, and of nothing else, there is a further pass
    assert run.cost.forwards == before.cost.forwards - 1 == (2 if ask == "DeepLift" else 1)
    assert run.cost.backwards == before.cost.backwards


@pytest.mark.parametrize("ask", ["gradient", "layer", "guided"])
def test_in_volumes_too(ask):
    target = Target("cell", Predicted())
    there, here = (asked(target, 3, later=later, ask=ask)[0] for later in (False, True))
    torch.testing.assert_close(here, there, rtol=0, atol=1e-6 * float(there.abs().max()))


@pytest.mark.parametrize("ask", ASK)
def test_a_target_that_is_not_there_is_told_all_the_same(ask):
    with pytest.raises(NoSuchRegion):
        _ = asked(Target(None, Object(number=99)), later=True, ask=ask)[1].target
    with pytest.raises(UnknownName):
        _ = asked(Target("nobody"), later=True, ask=ask)[1].target


BEYOND = {
    "point of three axes": Point((1, 2, 3)),
    "point outside": Point((500, 5)),
    "point before the start": Point((-1, 5)),
    "box of three axes": Box((1, 2, 3), (4, 5, 6), predicted_only=False),
    "box outside": Box((300, 300), (310, 310), predicted_only=False),
    "box upside down": Box((20, 20), (5, 5), predicted_only=False),
    "object of three axes": Object(at=(1, 2, 3)),
    "object outside": Object(at=(900, 2)),
    "rim of a box outside": Border(Box((300, 300), (310, 310), predicted_only=False)),
}


@pytest.mark.parametrize("known", [False, True], ids=["reach unknown", "reach known"])
@pytest.mark.parametrize("region", BEYOND)
def test_a_wrong_click_is_told_whether_or_not_the_reach_is_known(region, known):
    own = model()
    if known:
        assert find_reach(own) is not None
    for method in ("vanilla-gradient", "seg-grad-cam", "lrp"):
        with pytest.raises(NoSuchRegion):
            explain(method, small_image(), own, Target(None, BEYOND[region]))


def unet(seed=0):
    torch.manual_seed(seed)
    return wrap(UNet(1, 2, (4, 6)).eval(), classes=("background", "cell"), divisor=2)


def big(side=128):
    return Image(np.random.default_rng(0).random((side, side)).astype(np.float32), "YX")


@pytest.mark.parametrize(
    ("seed", "region"),
    enumerate(
        [Painted(np.pad(np.ones((4, 4)), (60, 64)) > 0), Point((64, 64)), Object(at=(64, 64)), Box((60, 60), (66, 66))]
    ),
    ids=["painted", "point", "object", "box"],
)
def test_a_small_region_is_asked_on_a_crop_where_the_reach_is_known(seed, region):
    own = unet(seed + 10)  # nobody has looked at it yet
    clean = Clean(own, torch.zeros(1, 1, 128, 128), Target("cell", region), Run())
    assert clean.opens
    assert find_reach(own) is not None
    assert not clean.opens
    assert Clean(own, torch.zeros(1, 1, 128, 128), Target("cell", Predicted()), Run()).opens


def test_a_plain_run_takes_no_short_cut_and_a_pass_is_made_once():
    assert not Clean(unet(), torch.zeros(1, 1, 16, 16), Target("cell"), Run(plain=True)).opens
    run = Run()
    clean = Clean(unet(), torch.rand(1, 1, 16, 16), Target("cell", Point((3, 3))), run)
    first = clean.logits
    assert clean.logits is first
    assert not clean.fresh
    assert not clean.opens
    assert clean.about(clean.target).logits is first
    assert run.cost.forwards == 1


def test_a_large_image_goes_in_pieces_where_its_pass_back_would_not_fit(monkeypatch):
    monkeypatch.setattr("seglens.engine.appetite.ABOUT", 0.0)
    own, image = unet(), big(160)
    find_reach(own)
    answer = explain("vanilla-gradient", image, own, Target("cell", Predicted()), run=Run(memory=2**21), show="signed")
    assert answer.record.engine["gradients"][0]["pieces"] > 1
    monkeypatch.undo()
    whole = explain("vanilla-gradient", image, own, Target("cell", Predicted()), show="signed")
    assert whole.record.cost["forwards"] == 1
    largest = float(np.abs(whole.map.data).max())
    np.testing.assert_allclose(answer.map.data, whole.map.data, rtol=0, atol=1e-5 * largest)


def test_memory_that_runs_out_in_the_first_pass_back_is_not_the_end(monkeypatch):
    own, image, calls = unet(), big(64), []
    usual = torch.autograd.grad

    def grad(*args, **more):
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError
        return usual(*args, **more)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    answer = explain("vanilla-gradient", image, own, Target("cell", Predicted()))
    assert len(calls) > 1
    monkeypatch.undo()
    usual = explain("vanilla-gradient", image, own, Target("cell", Predicted()))
    np.testing.assert_allclose(answer.map.data, usual.map.data, rtol=0, atol=1e-6 * float(usual.map.data.max()))
