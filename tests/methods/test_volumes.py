"""Real volumes: a small 3-D network is trained here on hippocampus MRI, and every method for volumes is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

import seglens
from seglens.core.image import Image
from seglens.core.method import Need
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.features import build_bank
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from
from seglens.session import explain

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "msd_hippocampus"
SIZE = (20, 28, 20)
CLASSES = ("background", "anterior", "posterior")

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the hippocampus volumes are not beside the project")


def volume(name):
    """Pixels with mean 0 and deviation 1, and labels, cut to one size."""
    pair = []
    for folder in ("images", "labels"):
        found = next((DATA / folder).glob(f"{name}*"))
        pixels = seglens.open_image(found).read("ZYX")
        start = [(n - s) // 2 for n, s in zip(pixels.shape, SIZE, strict=True)]
        pair.append(pixels[tuple(slice(a, a + s) for a, s in zip(start, SIZE, strict=True))])
    pixels, labels = pair
    return ((pixels - pixels.mean()) / pixels.std()).astype(np.float32), labels.astype(np.int64)


@pytest.fixture(scope="module")
def scans():
    names = sorted(p.name.split(".")[0] for p in (DATA / "images").iterdir())
    found = []
    for name in names:
        pixels, labels = volume(name)
        if pixels.shape == SIZE and (labels > 0).sum() > 500:
            found.append((pixels, labels))
    return found


@pytest.fixture(scope="module")
def trained(scans):
    """A minute of training; the last volumes are kept for the questions."""
    torch.manual_seed(0)
    net = UNet(1, 3, (8, 12), dims=3, dropout=0.05)
    x = torch.from_numpy(np.stack([s[0] for s in scans[:-4]]))[:, None]
    y = torch.from_numpy(np.stack([s[1] for s in scans[:-4]]))
    optimiser = torch.optim.Adam(net.parameters(), 4e-3)
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([1.0, 4.0, 4.0])
    for _ in range(80):
        pick = torch.randperm(len(x), generator=generator)[:4]
        loss = F.cross_entropy(net(x[pick]), y[pick], weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    spec = ModelSpec(
        "hippocampus", "ZYX", ("MRI",), classes_from(CLASSES), normalisation=Normalisation("none"), divisor=2
    )
    return SegmentationModel(net.eval(), spec)


@pytest.fixture(scope="module")
def question(scans, trained):
    """A volume that was not trained on, and the part of its hippocampus that the network finds in one corner."""
    pixels, labels = scans[-1]
    image = Image(pixels, "ZYX", name="scan")
    drawn = seglens.segment(image, trained).labels
    found = drawn == 1
    centre = np.argwhere(found).mean(0).round().astype(int)
    region = np.zeros(SIZE, bool)
    region[tuple(slice(max(0, c - 3), c + 3) for c in centre)] = True
    region &= found
    assert region.sum() > 20
    return image, Target("anterior", Painted(region)), region, drawn, labels


def test_the_network_has_learnt_it(question):
    _, _, _, drawn, labels = question
    for k in (1, 2):
        dice = 2 * ((drawn == k) & (labels == k)).sum() / ((drawn == k).sum() + (labels == k).sum())
        assert dice > 0.5


@pytest.fixture(scope="module")
def bank(scans, trained, tmp_path_factory):
    """Patches of two other volumes."""
    shown = [Image(pixels, "ZYX", name=f"scan {n}") for n, (pixels, _) in enumerate(scans[-3:-1])]
    return build_bank(trained, shown, tmp_path_factory.mktemp("volumes") / "scans.bank", kind="patch", side=4)


VOLUMES = [n for n in seglens.METHODS if 3 in seglens.METHODS[n].dims]


@pytest.mark.parametrize("name", VOLUMES)
def test_every_method_for_volumes_answers_on_a_scan(name, question, trained, request):
    image, target, region, _, _ = question
    method = seglens.METHODS[name].quick()
    if {Need.ANNOTATION, Need.REFERENCE, Need.ATTENTION, Need.PROTOTYPES, Need.ANNOTATORS} & method.needs:
        pytest.skip(f"{method.title} needs more than a volume and a U-Net")
    if name == "descriptor-shapley":
        with pytest.raises(seglens.SegLensError, match="object"):
            explain(method, image, trained, target)
        return
    more = {"second_model": trained} if Need.SECOND_MODEL in method.needs else {}
    if Need.BANK in method.needs:
        more["bank"] = request.getfixturevalue("bank")
    answer = explain(method, image, trained, target, **more)
    for layer in answer.layers:
        data = np.asarray(layer.data)
        assert np.isfinite(data).all()
        assert data.shape[:3] == SIZE or (layer.kind == "points" and data.shape[1] == 3)
    if name == "grid-saliency" and "no context" in answer.text.lower():
        return  # an answer as well: the region tells enough by itself
    if method.locates:
        values = np.abs(np.asarray(answer.map.data, float))
        assert values.max() > 0
        near = ndimage.binary_dilation(region, iterations=6)
        assert values[near].mean() > values[~near].mean()


def test_packed_windows_equal_the_straight_loop_on_a_scan(question, trained):
    image, target, *_ = question
    fast = explain("occlusion", image, trained, target, window=6, stride=6)
    plain = explain("occlusion", image, trained, target, window=6, stride=6, run=Run(plain=True))
    np.testing.assert_allclose(fast.map.data, plain.map.data, rtol=0, atol=1e-5 * np.abs(plain.map.data).max() + 1e-5)


def test_shares_of_slices_add_up(question, trained):
    image, target, region, *_ = question
    answer = explain("kernel-shap", image, trained, target, units="slices", samples=120, fill="mean")
    shares = answer.tables[0].columns["Shapley value"]
    x = torch.from_numpy(image.data)[None, None]
    inside = torch.from_numpy(region)
    with torch.no_grad():
        full, empty = (float(trained.logits(z)[0, 1, inside].mean()) for z in (x, x.mean().expand_as(x)))
    assert sum(shares) == pytest.approx(full - empty, abs=1e-3 * abs(full - empty))
    # the slices of the region itself tell most
    order = np.argsort(shares)[::-1]
    rows = np.flatnonzero(region.any((1, 2)))
    names = answer.tables[0].columns["name"]
    assert int(names[order[0]].split()[1]) in range(rows.min() - 3, rows.max() + 4)
