"""Your own network, made in Python: wrap it, say what it expects, explain it."""

import torch
from torch import Tensor, nn

import seglens
from seglens.models.spec import ClassSpec, ModelSpec, Normalisation


class BrightSpots(nn.Module):
    """Anything that answers scores before softmax, (N, K, Y, X); here: bright after a small blur."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(5, stride=1, padding=2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        bright = 10 * (self.blur(x) - 0.3)
        return torch.cat([-bright, bright], dim=1)


spec = ModelSpec(
    name="bright-spots",
    axes="YX",
    channels=("nuclei",),
    classes=(ClassSpec("background", "#00000000"), ClassSpec("nucleus", "#26c6da")),  # background first
    normalisation=Normalisation("percentile", low=1.0, high=99.8),
)
model = seglens.SegmentationModel(BrightSpots(), spec)

image = seglens.open_image("sample:nuclei-2d")
drawn = seglens.segment(image, model)
print(f"{drawn.objects().max()} objects")

answer = seglens.explain("vanilla-gradient", image, model, seglens.Target("nucleus", seglens.Object(number=1)))
reached = (answer.map.data > 0).sum()
print(answer.text, f"{reached} pixels count: the object and a rim as wide as the blur.", sep="\n")
