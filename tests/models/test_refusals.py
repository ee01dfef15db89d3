"""What cannot be loaded is told in two sentences: what it is, with the value given, and what to do."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import BASIC, UNET, Made, bioimage, bioimage_card, describe, own_folder, settled
from safetensors.torch import save_file
from torch import nn

from seglens.core.errors import BadParameter, ModelMismatch, SegLensError, UnknownName, UntrustedModel
from seglens.models.loaders import load_model
from seglens.models.nets import build_network
from seglens.models.trust import Trust, granted

ALWAYS = Trust.always()


def refusal(kind: type[SegLensError], source: Any, *parts: str, fix: str = "", **options: Any) -> SegLensError:
    """The error of loading; both sentences are there, and the parts are in the first."""
    with pytest.raises(SegLensError) as caught:
        load_model(source, device="cpu", **options)
    error = caught.value
    assert type(error) is kind, error
    for part in parts:
        assert part in error.what, error
    assert error.what.endswith((".", "?")), error
    assert error.fix.endswith("."), error
    assert fix in error.fix, error
    assert "Traceback" not in str(error)
    return error


class Whole(nn.Module):
    """A network that somebody pickled as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


CONTENTS: dict[str, tuple[bytes, str]] = {
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "a PNG image"),
    "empty": (b"", "empty"),
    "text": ("Größe und Gewichte\n".encode() * 20, "a text file"),
    "noise": (bytes(range(255, 100, -1)), "not known"),
    "tiff": (b"II*\0" + b"\0" * 60, "a TIFF image"),
    "keras": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "cut zip": (b"PK\x03\x04" + b"\0" * 60, "cut short"),
    "cut pickle": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M", "cannot be read"),
    "cut safetensors": (b"\x40\0\0\0\0\0\0\0{" + b" " * 80, "cannot be read"),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_not_a_model_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(CONTENTS[what][0])
    refusal(ModelMismatch, path, "weights.pt", CONTENTS[what][1], network="unet", arguments=UNET)


def test_zip_and_folder_that_hold_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.txt", "x")
    refusal(ModelMismatch, tmp_path / "photos.zip", "photos.zip", "no model")
    refusal(ModelMismatch, tmp_path, tmp_path.name, fix="model")
    (tmp_path / "config.json").write_text("{}")
    refusal(ModelMismatch, tmp_path, "Hugging Face", fix="net.py:build")


def test_missing_file_names_the_zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shelf = {"nuclei-fluorescence": own_folder(tmp_path / "nuclei_fluorescence")}
    monkeypatch.setattr("seglens.models.loaders.detect.zoo", lambda: shelf)
    refusal(UnknownName, "nuclei-flourescence", "nuclei-flourescence", fix="Did you mean nuclei-fluorescence?")
    refusal(UnknownName, tmp_path / "nothing.pt2", "nothing.pt2", fix="nuclei-fluorescence")
    model = load_model("nuclei-fluorescence", device="cpu")
    assert (model.source, model.spec.name) == ("nuclei-fluorescence", "test")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(build_network("unet", UNET).state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_weights_and_their_network(weights: Path) -> None:
    refusal(ModelMismatch, weights, "net.safetensors", "not known", fix="--network")
    refusal(UnknownName, weights, "unett", fix="unet", network="unett")
    refusal(UnknownName, weights, "BasicNet", fix="Did you mean BasicUNet?", network="monai:BasicNet")
    refusal(UnknownName, weights, "system", network="monai:system")
    refusal(BadParameter, weights, "colour", network="monai:BasicUNet", arguments={"colour": 1})
    refusal(BadParameter, weights, "colour", network="unet", arguments={**UNET, "colour": 1})
    refusal(ModelMismatch, weights, "missing", "unexpected", "more", network="monai:BasicUNet", arguments=BASIC)
    fewer = {**UNET, "out_channels": 2}
    refusal(ModelMismatch, weights, "head.weight", "(3, 4, 1, 1)", "(2, 4, 1, 1)", network="unet", arguments=fewer)
    refusal(BadParameter, weights, "net.safetensors", weights=weights, network="unet")


def test_no_such_device(weights: Path) -> None:
    with pytest.raises(BadParameter) as caught:
        load_model(weights, network="unet", device="cuda:99")
    assert "cuda:99" in caught.value.what
    assert "--device" in caught.value.fix


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "net.pt")
    refusal(ModelMismatch, tmp_path / "net.pt", "epoch", fix="state_dict", network="unet", arguments=UNET)


def test_a_pickled_module_needs_trust(tmp_path: Path) -> None:
    torch.save(Whole(), tmp_path / "whole.pt")
    refusal(UntrustedModel, tmp_path / "whole.pt", "state_dict", "torch.export", fix="--trust")
    model = load_model(tmp_path / "whole.pt", trust=ALWAYS, device="cpu")
    assert isinstance(model.module, Whole)
    assert model.spec.sha256 in granted()


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Touch(), tmp_path / "evil.pt")
    refusal(UntrustedModel, tmp_path / "evil.pt", "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_an_exported_graph_that_runs_code_is_not_run(tmp_path: Path, made: dict[str, Made]) -> None:
    """``torch.export.load`` unpickles the sample inputs of a file; this one would make a file."""

    class Touch:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Touch(), tmp_path / "inputs")
    with zipfile.ZipFile(made["exported, fixed"].source) as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for name in good.namelist():
            bad = "sample_inputs" in name
            evil.writestr(name, (tmp_path / "inputs").read_bytes() if bad else good.read(name))
    refusal(UntrustedModel, tmp_path / "evil.pt2", "evil.pt2", "unpickles")
    assert not (tmp_path / "ran").exists()


def test_broken_graphs(tmp_path: Path, made: dict[str, Made]) -> None:
    for name, inner in (("torchscript", "data.pkl"), ("exported, fixed", "model.json")):
        path = tmp_path / "broken.pt"
        with zipfile.ZipFile(made[name].source) as good, zipfile.ZipFile(path, "w") as bad:
            for entry in good.namelist():
                bad.writestr(entry, b"{" if entry.endswith(inner) else good.read(entry))
        refusal(ModelMismatch, path, "broken.pt", "cannot be read", trust=ALWAYS)


FACTORIES = {
    "def build(:": ("SyntaxError", ModelMismatch),
    "import no_such_package_xyz": ("no_such_package_xyz", ModelMismatch),
    "def build():\n    return 3": ("returns a int", ModelMismatch),
    "def build():\n    return 1 / 0": ("division by zero", ModelMismatch),
    "def build(size):\n    pass": ("size", ModelMismatch),
    "def other():\n    pass": ("build", UnknownName),
}


@pytest.mark.parametrize("code", FACTORIES)
def test_factories_that_fail(tmp_path: Path, code: str) -> None:
    (tmp_path / "net.py").write_text(code)
    part, kind = FACTORIES[code]
    refusal(kind, f"{tmp_path / 'net.py'}:build", part, trust=ALWAYS)


def test_a_changed_factory_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    code = "import neighbour\nfrom torch import nn\ndef build(): return nn.Conv2d(1, neighbour.K, 3, padding=1)\n"
    path.write_text(code)
    (tmp_path / "neighbour.py").write_text("K = 2\n")
    load_model(path, trust=ALWAYS, device="cpu")
    load_model(path, device="cpu")
    path.write_text(code + "# changed\n")
    refusal(UntrustedModel, path, "net.py")


DESCRIPTIONS = {
    "{": "cannot be read",
    "[]": "list",
    describe({"name": "unet", "arguments": UNET}, colour="red"): "colour",
    describe(None): "which network",
    describe({"arguments": UNET}): "names the network",
    describe({"name": "unet", "arguments": UNET}, channels=[]): "channels",
    describe({"name": "unet", "arguments": UNET}, divisor=0): "divisor",
    describe({"name": "unet", "arguments": UNET}, axes="XY"): "'XY'",
    describe({"name": "unet", "arguments": UNET}, axes="ZYX"): "axes ZYX",
    describe({"name": "unet", "arguments": UNET}, channels=["a", "b"]): "2 channels",
    describe({"name": "unet", "arguments": UNET}, classes=["a", "b"]): "2 classes and answers 3",
    describe({"name": "unet", "arguments": UNET}, normalisation={"kind": "none", "sigma": 1}): "sigma",
}


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_descriptions_that_do_not_fit(tmp_path: Path, text: str) -> None:
    folder = own_folder(tmp_path / "own")
    (folder / "model.json").write_text(text)
    kind = BadParameter if "XY" in DESCRIPTIONS[text] and "ZYX" not in DESCRIPTIONS[text] else ModelMismatch
    refusal(kind, folder, DESCRIPTIONS[text])


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = own_folder(tmp_path / "own")
    (folder / "weights.safetensors").unlink()
    refusal(ModelMismatch, folder, "weights.safetensors", fix="--weights")


PACKAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no name": (lambda card: card.pop("name"), "name: Field required"),
    "clip": (lambda card: card["inputs"][0]["preprocessing"].append({"id": "clip", "kwargs": {"min": 0.0}}), "'clip'"),
    "whole numbers": (
        lambda card: card["inputs"][0]["preprocessing"].append({"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}),
        "uint8",
    ),
    "only onnx": (
        lambda card: card.update(weights={"onnx": {"source": "weights.pt", "opset_version": 15}}),
        "onnx",
    ),
    "link": (
        lambda card: card["weights"]["pytorch_state_dict"].update(source="https://example.com/weights.pt"),
        "https://example.com/weights.pt",
    ),
    "escape": (
        lambda card: card["weights"]["pytorch_state_dict"].update(source="../../weights.pt"),
        "../../weights.pt",
    ),
    "changed": (lambda card: card["weights"]["pytorch_state_dict"].update(sha256="0" * 64), "sha256 differs"),
    "missing": (lambda card: card["weights"]["pytorch_state_dict"].update(source="w.pt", sha256=None), "w.pt"),
    "other library": (
        lambda card: card["weights"]["pytorch_state_dict"].update(
            architecture={"import_from": "os", "callable": "system", "kwargs": {"command": "true"}}
        ),
        "package os",
    ),
    "channels last": (
        lambda card: card["inputs"][0]["axes"].append(card["inputs"][0]["axes"].pop(1)),
        "orders its axes",
    ),
}


@pytest.mark.parametrize("what", PACKAGES)
def test_packages_that_do_not_fit(tmp_path: Path, what: str) -> None:
    from bioimageio.spec._internal.io_utils import write_yaml

    from seglens.models.trust import sha256_of

    folder = bioimage(tmp_path)
    card = bioimage_card({p.name: sha256_of(p) for p in folder.iterdir()})
    change, part = PACKAGES[what]
    change(card)
    write_yaml(card, folder / "rdf.yaml")
    refusal(ModelMismatch, folder, part, trust=ALWAYS)


def test_bundles_that_do_not_fit(tmp_path: Path, made: dict[str, Made]) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(made["bundle"].source, folder)
    inference = folder / "configs" / "inference.json"
    config = json.loads(inference.read_text())

    def write(**network: Any) -> None:
        inference.write_text(json.dumps({**config, "network_def": {**config["network_def"], **network}}))

    write(_target_="os.system", command="true")
    refusal(UntrustedModel, folder, "os.system", "sha256")
    write(bias="$__import__('os').system('true')")
    refusal(UntrustedModel, folder, "__import__")
    write(norm={"_target_": "builtins.print"})
    refusal(UntrustedModel, folder, "builtins.print")
    write(_mode_="debug")
    refusal(UntrustedModel, folder, "_mode_")
    write(features="@network_def::features")
    refusal(UntrustedModel, folder, "refers to itself")
    write(bias="$1 / 0")
    refusal(ModelMismatch, folder, "cannot be made", trust=ALWAYS)
    write(colour=3)
    refusal(BadParameter, folder, "colour")
    inference.write_text("{")
    refusal(ModelMismatch, folder, "inference.json")
    inference.unlink()
    refusal(ModelMismatch, folder, "inference.json")
    inference.write_text(json.dumps({"a": 1}))
    refusal(ModelMismatch, folder, "network_def")
    inference.write_text(json.dumps(config))
    (folder / "models" / "model.pt").unlink()
    refusal(ModelMismatch, folder, "model.pt")


def test_a_network_that_answers_no_map(tmp_path: Path) -> None:
    code = "from torch import nn\ndef build(): return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten())\n"
    (tmp_path / "net.py").write_text(code)
    refusal(ModelMismatch, tmp_path / "net.py", "tensor of shape", trust=ALWAYS)
    (tmp_path / "net.py").write_text("from torch import nn\ndef build(): return nn.Conv2d(1, 2, 5)\n")
    refusal(ModelMismatch, tmp_path / "net.py", "it answers", trust=ALWAYS)


def test_loading_leaves_the_random_generator_alone(weights: Path) -> None:
    torch.manual_seed(5)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    load_model(weights, network="unet", arguments=UNET, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)


def test_settled_networks_differ_by_seed_only() -> None:
    one, two = settled(build_network("unet", UNET)), settled(build_network("unet", UNET))
    assert torch.equal(one.head.weight, two.head.weight)
