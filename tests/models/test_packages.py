"""bioimage.io packages of other kinds: old format, networks of MONAI, TorchScript, fixed sizes, several axes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from bioimageio.spec._internal.io_utils import write_yaml
from model_files import BASIC, bioimage, bioimage_card, picture, run, settled
from torch import nn

from seglens.models.loaders import load_model
from seglens.models.segmentation import SegmentationModel
from seglens.models.trust import Trust, sha256_of

OLD = """
format_version: 0.4.9
type: model
name: Old model
description: from a test
authors: [{name: SegLens}]
cite: [{text: nobody, doi: 10.1000/xyz123}]
license: MIT
documentation: doc.md
tags: []
timestamp: '2024-01-01T00:00:00'
test_inputs: [input.npy]
test_outputs: [output.npy]
inputs:
- name: raw
  axes: bcyx
  data_type: float32
  data_range: [-.inf, .inf]
  shape: {min: [1, 1, 32, 32], step: [0, 0, 16, 16]}
  preprocessing: [{name: scale_range, kwargs: {mode: per_sample, axes: cyx, max_percentile: 99.0}}]
outputs:
- name: mask
  axes: bcyx
  data_type: float32
  halo: [0, 0, 8, 8]
  shape: {reference_tensor: raw, scale: [1, 1, 1, 1], offset: [0, 0, 0, 0]}
weights:
  pytorch_state_dict:
    {source: weights.pt, architecture: 'net.py:build', architecture_sha256: HASH, kwargs: {classes: 1}}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return bioimage(tmp_path)


def card_of(package: Path) -> dict[str, Any]:
    return bioimage_card({p.name: sha256_of(p) for p in package.iterdir()})


def load(package: Path, trust: Trust = Trust.never()) -> SegmentationModel:  # noqa: B008
    return load_model(package / "rdf.yaml", trust=trust, device="cpu")


def test_the_older_format(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (package / "rdf.yaml").write_text(OLD.replace("HASH", sha256_of(package / "net.py")))
    spec = load(package, Trust.always()).spec
    assert (spec.name, spec.channels, [c.name for c in spec.classes]) == (
        "Old model",
        ("grey",),
        ["background", "class 1"],
    )
    assert (spec.divisor, spec.min_size, spec.halo) == (16, 32, (8, 8))
    norm = spec.normalisation
    assert (norm.kind, norm.low, norm.high, norm.per_channel) == ("percentile", 0.0, 99.0, False)
    assert capfd.readouterr().err == ""


def test_a_network_of_monai_needs_no_trust(package: Path) -> None:
    card = card_of(package)
    arguments = {**BASIC, "in_channels": 1, "out_channels": 1}
    from monai.networks.nets import BasicUNet

    network = settled(BasicUNet(**arguments))
    torch.save(network.state_dict(), package / "basic.pt")
    card["weights"]["pytorch_state_dict"].update(
        source="basic.pt",
        sha256=None,
        architecture={"import_from": "monai.networks.nets", "callable": "BasicUNet", "kwargs": arguments},
    )
    write_yaml(card, package / "rdf.yaml")
    x = picture(1, 1, 32, 40)
    torch.testing.assert_close(run(load(package).module, x), run(network, x))


def test_torchscript_fixed_size_and_softmax(package: Path) -> None:
    card = card_of(package)
    network = settled(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, picture(1, 1, 32, 32)).save(str(package / "net.ts"))
    card["weights"] = {"torchscript": {"source": "net.ts", "pytorch_version": "2.6"}}
    tensor, answer = card["inputs"][0], card["outputs"][0]
    tensor["axes"][0]["size"] = 1
    for axis in tensor["axes"][2:]:
        axis["size"] = 32
    for axis in answer["axes"][2:]:
        del axis["halo"]
    answer["axes"][1]["channel_names"] = ["outside", "inside"]
    answer["postprocessing"] = [{"id": "softmax", "kwargs": {"axis": "channel"}}]
    tensor["preprocessing"] = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}]
    write_yaml(card, package / "rdf.yaml")
    model = load(package, Trust.always())
    spec = model.spec
    assert (spec.size, spec.batch, model.layered, spec.multilabel) == ((32, 32), 1, False, False)
    assert [c.name for c in spec.classes] == ["outside", "inside"]
    assert (spec.normalisation.kind, spec.normalisation.per_channel) == ("zscore", True)
    x = picture(2, 1, 32, 20)
    padded = torch.nn.functional.pad(x, (0, 12, 0, 0), mode="replicate")
    torch.testing.assert_close(run(model.module, padded)[..., :20], model.logits(x).detach())
