"""Ask several methods the same question, save one picture, and see how far they agree."""

from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import seglens
from seglens.app.report.overview import overview

image = seglens.open_image("sample:shortcut")
model = seglens.load_model("shortcut-synthetic")
target = seglens.Target("infected", seglens.Object(at=(32, 105)))

# A method is a value: its fields are its parameters, and two of the same fields are equal.
recipes = [
    seglens.METHODS["vanilla-gradient"](show="magnitude"),
    seglens.METHODS["seg-grad-cam"](),
    seglens.METHODS["occlusion"](window=20, stride=10),
]
answers = [seglens.explain(recipe, image, model, target) for recipe in recipes]

for recipe, answer in zip(recipes, answers, strict=True):
    cost = answer.record.cost
    print(f"{recipe.title:<17} {answer.record.seconds:5.1f} s, {cost['forwards']} forward passes")

# Rank correlation of the sizes. Methods that disagree are a reason to look again, not to pick the nicer map.
sizes = [np.abs(answer.map.data).ravel() for answer in answers]
for i in range(1, len(recipes)):
    print(f"{recipes[0].title} and {recipes[i].title}: {spearmanr(sizes[0], sizes[i]).statistic:.2f}")

overview(image, seglens.segment(image, model), answers, Path("compared.png"), model.spec)
print("Written: compared.png")
