"""Every method on every format that a network may come in: the same answer, or one clear sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seglens
from hand import Deep, small_image, wrap
from seglens.core.errors import MissingNeed
from seglens.core.method import Need
from seglens.core.target import Painted, Target
from seglens.models.trust import Trust
from seglens.session import explain

# What looks at the border of the image, and not at the target alone.
BORDER = {
    "descriptor-shapley", "u-noise", "smooth-u-noise", "segmented-score-map", "guided-segmentation-map",
    "similarity-map", "fusion-map", "prototype-rules",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network as TorchScript, and exported with free and with fixed sizes."""
    folder = tmp_path_factory.mktemp("formats")
    net, x, free = Deep(3, 3).eval(), torch.rand(2, 3, 32, 32), torch.export.Dim.DYNAMIC
    torch.jit.trace(net, x).save(folder / "script.pt")
    torch.export.save(torch.export.export(net, (x,)), folder / "fixed.pt2")
    shapes = ({0: free, 2: free, 3: free},)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=shapes), folder / "free.pt2")
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("file", ["script.pt", "free.pt2", "fixed.pt2"])
@pytest.mark.parametrize("name", list(seglens.METHODS))
def test_same_answer_or_one_sentence(name, file, files, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path))
    if file == "fixed.pt2":
        # a graph of one size takes no crop, so units and masks lie over the whole image: for both alike
        monkeypatch.setattr("seglens.engine.evaluator.find_reach", lambda *_: None)
    method = seglens.METHODS[name].quick()
    if 2 not in method.dims:
        pytest.skip(f"{method.title} is for {method.dims}")
    image, mask = small_image(3, side=29), np.zeros((29, 32), bool)
    mask[5:12, 5:12] = True
    target = Target(1, Painted(mask))
    model = seglens.load_model(files / file, trust=Trust.always(), spec={"normalisation": {"kind": "none"}})
    if Need.LAYER in method.needs:
        with pytest.raises(MissingNeed, match="exported graph"):
            explain(method, image, model, target)
        return
    if Need.ATTENTION in method.needs:
        with pytest.raises(MissingNeed, match="no attention"):
            explain(method, image, model, target)
        return
    if Need.DROPOUT in method.needs:
        # what was traced or exported in eval mode has none left
        with pytest.raises(MissingNeed, match="no dropout"):
            explain(method, image, model, target)
        return
    classes = tuple(c.name for c in model.spec.classes)
    if file == "fixed.pt2" and name in BORDER:
        # the image is padded to the graph's size: these look at its border, the others at the target alone
        assert np.isfinite(explain(method, image, model, target).map.data).all()
        return
    plain = explain(method, image, wrap(Deep(3, 3), channels=3, classes=classes), target)
    np.testing.assert_allclose(explain(method, image, model, target).map.data, plain.map.data, atol=1e-5)
