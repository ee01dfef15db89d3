"""What no description says is found out by trying; what the face of a model promises holds for odd sizes too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_files import UNET, UNET_3D, picture, run, settled
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.errors import ImageMismatch, ModelMismatch
from seglens.models.loaders.infer import complete
from seglens.models.nets import build_network
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.spec import ModelSpec


class Answers(nn.Module):
    """A convolution whose answer is dressed up."""

    def __init__(self, classes: int, dress: Callable[[Tensor], Any], channels: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, classes, 3, padding=1)
        self.dress = dress

    def forward(self, x: Tensor) -> Any:
        return self.dress(self.conv(x))


def found(module: nn.Module, **described: Any) -> ModelSpec:
    return complete(settled(module), {"name": "test", **described}, device="cpu")


def model(module: nn.Module, **described: Any) -> SegmentationModel:
    return SegmentationModel(module, found(module, **described))


DRESSES: dict[str, tuple[int, Callable[[Tensor], Any], tuple[str, bool, int]]] = {
    "one logit": (1, lambda y: y, ("logits", True, 2)),
    "one probability": (1, torch.sigmoid, ("probabilities", True, 2)),
    "logits": (3, lambda y: y, ("logits", False, 3)),
    "softmax": (3, lambda y: y.softmax(1), ("probabilities", False, 3)),
    "sigmoids": (3, torch.sigmoid, ("probabilities", True, 4)),
    "tuple": (3, lambda y: (y[:, :, ::2, ::2], y), ("logits", False, 3)),
    "list": (3, lambda y: [y, y.mean((2, 3))], ("logits", False, 3)),
    "dict": (3, lambda y: {"aux": y[:, :2], "out": y}, ("logits", False, 3)),
    "positive": (3, torch.relu, ("logits", False, 3)),
    "half the size": (2, lambda y: F.avg_pool2d(y, 2), ("logits", False, 2)),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_heads_and_outputs(dress: str) -> None:
    count, change, expected = DRESSES[dress]
    face = model(Answers(count, change))
    spec = face.spec
    assert (spec.head, spec.multilabel, len(spec.classes)) == expected
    assert [c.name for c in spec.classes][:2] == ["background", "class 1"]
    assert spec.divisor == (2 if dress == "half the size" else 1)
    x = picture(2, 1, 7, 9)
    assert face.logits(x).shape == (2, expected[2], 7, 9)


def test_logits_are_logits_again() -> None:
    plain, soft = model(Answers(3, lambda y: y)), model(Answers(3, lambda y: y.softmax(1)))
    x = picture(1, 1, 8, 8)
    torch.testing.assert_close(plain.logits(x).softmax(1), soft.logits(x).softmax(1), rtol=1e-4, atol=1e-5)
    one, sigmoid = model(Answers(1, lambda y: y)), model(Answers(1, torch.sigmoid))
    torch.testing.assert_close(one.logits(x), sigmoid.logits(x), rtol=1e-3, atol=1e-4)
    assert (one.logits(x)[:, 0] == 0).all()


def test_names_say_whether_there_is_a_background() -> None:
    shares = found(Answers(2, lambda y: y), classes=("background", "nucleus", "border"))
    assert shares.multilabel
    plain = found(Answers(2, lambda y: y), classes=("background", "nucleus"))
    assert not plain.multilabel


@pytest.mark.parametrize(("arguments", "shape"), [(UNET, (2, 1, 13, 22)), (UNET_3D, (1, 1, 3, 9, 14))])
def test_odd_sizes_are_padded_and_cropped_back(arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    network = build_network("unet", arguments)
    face = model(network)
    assert face.spec.divisor == 2
    x = picture(*shape)
    margins = [n for size in shape[2:][::-1] for n in (0, size % 2)]
    padded = F.pad(x, margins, mode="replicate")
    wanted = run(network, padded)[(..., *(slice(0, n) for n in shape[2:]))]
    torch.testing.assert_close(run(_Face(face), x), wanted, rtol=1e-5, atol=1e-5)


class _Face(nn.Module):
    def __init__(self, face: SegmentationModel) -> None:
        super().__init__()
        self.face = face

    def forward(self, x: Tensor) -> Tensor:
        return self.face.logits(x)


def test_tiny_images_are_padded_to_the_smallest_size() -> None:
    deep = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.AvgPool2d(8), nn.InstanceNorm2d(2), nn.Upsample(scale_factor=8)
    )
    face = model(deep)
    assert (face.spec.divisor, face.spec.min_size) == (8, 16)
    with quiet(face.module):
        assert face.logits(picture(1, 1, 3, 5)).shape == (1, 2, 3, 5)


def test_a_network_of_one_size() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)
            self.place = nn.Parameter(torch.zeros(1, 2, 96, 96))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.place

    face = model(Fixed())
    assert (face.spec.size, face.spec.batch) == ((96, 96), None)
    assert face.logits(picture(1, 1, 50, 96)).shape == (1, 2, 50, 96)
    with pytest.raises(ImageMismatch) as caught:
        face.logits(picture(1, 1, 97, 96))
    assert "96×96" in caught.value.what
    assert "97×96" in caught.value.what
    assert caught.value.fix


def test_a_network_of_one_batch() -> None:
    class Single(Answers):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).reshape(1, 2, *x.shape[2:])

    face = model(Single(2, lambda y: y))
    assert face.spec.batch == 1
    x = picture(3, 1, 8, 8)
    torch.testing.assert_close(face.logits(x)[2:], face.logits(x[2:]))


def test_grouped_and_unusual_first_convolutions() -> None:
    assert len(found(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 2, 1))).channels) == 6
    linear = nn.Sequential(_Move(), nn.Linear(3, 2), _Move(back=True))
    assert found(linear).channels == ("red", "green", "blue")


class _Move(nn.Module):
    def __init__(self, *, back: bool = False) -> None:
        super().__init__()
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 1) if self.back else x.movedim(1, -1)


@pytest.mark.parametrize(
    ("described", "part"),
    [
        ({"channels": ("a", "b")}, "2 channels"),
        ({"axes": "ZYX"}, "axes ZYX"),
        ({"size": (8, 8, 8)}, "another number of axes"),
    ],
)
def test_what_is_described_wrongly(described: dict[str, Any], part: str) -> None:
    with pytest.raises(ModelMismatch) as caught:
        found(Answers(2, lambda y: y), **described)
    assert part in caught.value.what
    assert "axes YX and 1 channel" in caught.value.fix


def test_wrong_images_are_told_what_the_model_expects() -> None:
    face = model(Answers(2, lambda y: y, channels=3))
    for x, part, fix in (
        (picture(1, 1, 8, 8), "the image has 1", "--channels 0,0,0"),
        (picture(1, 5, 8, 8), "the image has 5", "--channels 0,1,2"),
        (picture(1, 3, 4, 8, 8), "3 space axes", "--axes"),
    ):
        with pytest.raises(ImageMismatch) as caught:
            face.logits(x)
        assert part in caught.value.what
        assert fix in caught.value.fix
    wrong = SegmentationModel(face.module, face.spec.with_(classes=(*face.spec.classes, face.spec.classes[1])))
    with pytest.raises(ModelMismatch) as mismatch:
        wrong.logits(picture(1, 3, 8, 8))
    assert "3 classes and answers 2" in mismatch.value.what
    assert mismatch.value.fix
    named = SegmentationModel(face.module, face.spec.with_(output="mask"))
    named.module.dress = lambda y: {"out": y}
    with pytest.raises(ModelMismatch) as missing:
        named.logits(picture(1, 3, 8, 8))
    assert "a dict with out" in missing.value.what
    assert "`output`" in missing.value.fix


def test_quiet_restores_every_flag() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    network.train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    before = [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]

    def fail_inside() -> None:
        with quiet(network):
            assert not any(m.training for m in network.modules())
            assert not any(p.requires_grad for p in network.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert ([m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]) == before


def test_finding_out_leaves_the_network_as_it_was() -> None:
    network = settled(build_network("unet", UNET)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    complete(network, {"name": "test"}, device="cpu")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(m.training for m in network.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert network(picture(1, 1, 8, 8)).requires_grad
