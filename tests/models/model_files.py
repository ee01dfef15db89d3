"""Real model files of every format, made for the tests, with the logits that they have to give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from seglens.models.nets import build_network

HERE = Path(__file__).parent
UNET = {"in_channels": 1, "out_channels": 3, "features": [4, 8], "dims": 2}
UNET_3D = {"in_channels": 1, "out_channels": 2, "features": [4, 8], "dims": 3}
BASIC = {"spatial_dims": 2, "in_channels": 2, "out_channels": 3, "features": [4, 4, 4, 4, 4, 4]}

NET_PY = """
from torch import nn


class Two(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.inner = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, x):
        return {"aux": x, "out": self.head(self.inner(x).relu())}


def build(classes=2):
    return Two(classes)
"""


@dataclass
class Made:
    """A model file, how it is loaded, an image and the logits (class axis included) that it gives."""

    source: str
    image: Tensor
    logits: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    trusts: bool = False


def settled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that depend on the seed alone, and batch norm with statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
    return network.eval()


def picture(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(network: nn.Module, x: Tensor) -> Tensor:
    out = network(x)
    return out["out"] if isinstance(out, dict) else out


def describe(network: dict[str, Any] | None, **about: Any) -> str:
    usual = {"axes": "YX", "channels": ["dye"], "classes": ["background", "cell", "border"]}
    return json.dumps(({"network": network} if network else {}) | {"name": "test"} | usual | about)


def own_folder(place: Path, arguments: dict[str, Any] = UNET, **about: Any) -> Path:
    """A folder as `seglens train` writes it."""
    place.mkdir(parents=True)
    save_file(settled(build_network("unet", arguments)).state_dict(), place / "weights.safetensors")
    (place / "model.json").write_text(describe({"name": "unet", "arguments": arguments}, divisor=2, **about))
    return place


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def own(place: Path) -> dict[str, Made]:
    image, network = picture(1, 1, 20, 24), settled(build_network("unet", UNET))
    folder = own_folder(place / "own")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, place / "net.pt"
    )
    save_file(network.state_dict(), place / "sidecar.safetensors")
    (place / "sidecar.json").write_text(describe({"name": "unet", "arguments": UNET}))
    volume, solid = picture(1, 1, 5, 8, 10), settled(build_network("unet", UNET_3D))
    torch.save(solid.state_dict(), place / "solid.pth", _use_new_zipfile_serialization=False)
    padded = torch.nn.functional.pad(volume, (0, 0, 0, 0, 0, 1), mode="replicate")
    named = {"network": "unet", "arguments": UNET}
    return {
        "folder": Made(str(folder), image, run(network, image)),
        "folder zip": Made(str(zipped(folder, place / "own.zip")), image, run(network, image)),
        "state dict": Made(str(place / "net.pt"), image, run(network, image), named),
        "safetensors": Made(str(place / "sidecar.safetensors"), image, run(network, image)),
        "3-D, odd, old format": Made(
            str(place / "solid.pth"),
            volume,
            run(solid, padded)[:, :, :5],
            {"network": "unet", "arguments": UNET_3D},
        ),
    }


def monai(place: Path) -> dict[str, Made]:
    from monai.networks.nets import BasicUNet

    network, image = settled(BasicUNet(**BASIC)), picture(1, 2, 33, 40)
    torch.save(network.state_dict(), place / "basic.pt")
    return {
        "monai": Made(
            str(place / "basic.pt"), image, run(network, image), {"network": "monai:BasicUNet", "arguments": BASIC}
        )
    }


def factory(place: Path) -> dict[str, Made]:
    path = place / "net.py"
    path.write_text(NET_PY)
    space: dict[str, Any] = {}
    exec(NET_PY, space)
    network, image = settled(space["build"](3)), picture(1, 1, 17, 19)
    torch.save(network.state_dict(), place / "two.pt")
    options = {"weights": str(place / "two.pt"), "arguments": {"classes": 3}}
    return {"factory": Made(f"{path}:build", image, run(network, image), options, trusts=True)}


def graphs(place: Path) -> dict[str, Made]:
    """TorchScript scripted, traced and frozen; exported with a fixed and with a free size."""
    network, image = settled(build_network("unet", UNET)), picture(1, 1, 16, 16)
    wanted = run(network, image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, image).save(str(place / "traced.ts"))
        torch.jit.freeze(torch.jit.script(settled(nn.Conv2d(1, 2, 3, padding=1)))).save(str(place / "frozen.pt"))
    (place / "traced.json").write_text(describe(None))
    torch.export.save(torch.export.export(network, (image,)), place / "fixed.pt2")
    pair, dim = picture(2, 1, 16, 16), torch.export.Dim
    free = {0: dim("batch"), 2: 2 * dim("height", min=2, max=512), 3: 2 * dim("width", min=2, max=512)}
    torch.export.save(torch.export.export(network, (pair,), dynamic_shapes=(free,)), place / "free.pt2")
    odd, small = picture(3, 1, 17, 21), picture(3, 1, 9, 16)
    odd_padded = torch.nn.functional.pad(odd, (0, 1, 0, 1), mode="replicate")
    small_padded = torch.nn.functional.pad(small, (0, 0, 0, 7), mode="replicate")
    conv = run(settled(nn.Conv2d(1, 2, 3, padding=1)), odd)
    return {
        "torchscript": Made(str(place / "traced.ts"), image, wanted, trusts=True),
        "torchscript, frozen": Made(str(place / "frozen.pt"), odd, conv, trusts=True),
        "exported, fixed": Made(str(place / "fixed.pt2"), small, run(network, small_padded)[:, :, :9], trusts=True),
        "exported, free": Made(str(place / "free.pt2"), odd, run(network, odd_padded)[..., :17, :21], trusts=True),
    }


def bundle(place: Path) -> dict[str, Made]:
    """A MONAI bundle that needs no code, the same with an expression, and the same zipped."""
    from monai.networks.nets import BasicUNet

    arguments = {**BASIC, "in_channels": 1, "features": "@features"}
    config = {
        "features": BASIC["features"],
        "bundle_root": ".",
        "network_def": {"_target_": "BasicUNet", **arguments},
        "network": "$@network_def.to('cpu')",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 200, "b_min": 0, "b_max": 1},
            ],
        },
    }
    metadata = {
        "name": "A bundle",
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "spatial_shape": ["16*n", "16*n"], "channel_def": {"0": "CT"}}},
            "outputs": {"pred": {"num_channels": 3, "channel_def": {"0": "background", "1": "liver", "2": "spleen"}}},
        },
    }
    network, image = settled(BasicUNet(**{**BASIC, "in_channels": 1})), picture(1, 1, 32, 48)
    # MONAI's readers give x before y
    wanted = run(network, image.transpose(2, 3)).transpose(2, 3)
    folder = place / "bundle"
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    inference = folder / "configs" / "inference.json"
    inference.write_text(json.dumps({**config, "network_def": {**config["network_def"], "bias": "$1 == 1"}}))
    needs_code = place / "bundle-code.zip"
    zipped(folder, needs_code)
    inference.write_text(json.dumps(config))
    return {
        "bundle": Made(str(folder), image, wanted),
        "bundle with code": Made(str(needs_code), image, wanted, trusts=True),
    }


def bioimage(place: Path, *, name: str = "packaged", changes: dict[str, Any] | None = None) -> Path:
    """A folder with a valid rdf.yaml, a network from a source file, weights and test tensors."""
    from bioimageio.spec import load_model_description
    from bioimageio.spec._internal.io_utils import write_yaml

    from seglens.models.trust import sha256_of

    folder = place / name
    folder.mkdir()
    (folder / "net.py").write_text(
        NET_PY.replace('{"aux": x, "out": self.head(self.inner(x).relu())}', "self.run(x)") + RUN
    )
    space: dict[str, Any] = {}
    exec((folder / "net.py").read_text(), space)
    network, image = settled(space["build"](1)), picture(1, 1, 32, 32)
    torch.save(network.state_dict(), folder / "weights.pt")
    np.save(folder / "input.npy", image.numpy())
    np.save(folder / "output.npy", run(network, (image - 0.5) / 0.25).sigmoid().numpy())
    (folder / "doc.md").write_text("# A test model\n")
    hashes = {f: sha256_of(folder / f) for f in ("net.py", "weights.pt", "input.npy", "output.npy")}
    card = {**bioimage_card(hashes), **(changes or {})}
    write_yaml(card, folder / "rdf.yaml")
    if not changes:
        load_model_description(folder / "rdf.yaml", format_version="latest", perform_io_checks=True)
    return folder


RUN = "\n\nTwo.run = lambda self, x: self.head(self.inner(x).relu())\n"


def bioimage_card(hashes: dict[str, str]) -> dict[str, Any]:
    def space(axis: str) -> dict[str, Any]:
        return {"type": "space", "id": axis, "size": {"min": 16, "step": 8}, "scale": 0.5, "unit": "micrometer"}

    def after(axis: str) -> dict[str, Any]:
        same = {"tensor_id": "raw", "axis_id": axis}
        return {"type": "space", "id": axis, "size": same, "halo": 4, "scale": 0.5, "unit": "micrometer"}

    fixed = {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 0.5, "std": 0.25}}
    return {
        "type": "model",
        "format_version": "0.5.3",
        "name": "Packaged model",
        "description": "Made for a test",
        "authors": [{"name": "SegLens"}],
        "cite": [{"text": "nobody", "doi": "10.1000/xyz123"}],
        "license": "MIT",
        "documentation": "doc.md",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["dye"]}, space("y"), space("x")],
                "data": {"type": "float32"},
                "test_tensor": {"source": "input.npy", "sha256": hashes["input.npy"]},
                "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}, fixed],
            }
        ],
        "outputs": [
            {
                "id": "mask",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["nucleus"]}, after("y"), after("x")],
                "data": {"type": "float32"},
                "test_tensor": {"source": "output.npy", "sha256": hashes["output.npy"]},
                "postprocessing": [{"id": "sigmoid"}],
            }
        ],
        "weights": {
            "pytorch_state_dict": {
                "source": "weights.pt",
                "sha256": hashes["weights.pt"],
                "architecture": {
                    "source": "net.py",
                    "sha256": hashes["net.py"],
                    "callable": "build",
                    "kwargs": {"classes": 1},
                },
                "pytorch_version": "2.6",
            }
        },
    }


def packages(place: Path) -> dict[str, Made]:
    folder = bioimage(place)
    space: dict[str, Any] = {}
    exec((folder / "net.py").read_text(), space)
    network, image = settled(space["build"](1)), picture(1, 1, 30, 40)
    padded = torch.nn.functional.pad(image, (0, 0, 0, 2), mode="replicate")
    foreground = run(network, padded)[:, :, :30]
    logits = torch.cat([torch.zeros_like(foreground), foreground], 1)
    return {"bioimage.io": Made(str(zipped(folder, place / "packaged.zip")), image, logits, trusts=True)}


def everything(place: Path) -> dict[str, Made]:
    """Every file of this module, in one folder."""
    made: dict[str, Made] = {}
    for maker in (own, monai, factory, graphs, bundle, packages):
        made |= maker(place)
    return made


def load_afresh(jobs: list[dict[str, Any]], place: Path, home: Path) -> list[dict[str, Any]]:
    """Load models in a process of its own; what came out of each, as plain data."""
    (place / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "SEGLENS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "fresh.py"), str(place / "jobs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])
