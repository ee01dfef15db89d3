"""Count objects in many files: `python batch_of_files.py *.tif`. One bad file does not stop the others."""

import csv
import sys
from pathlib import Path

import numpy as np

import seglens
from seglens.sample_data import HERE

MODEL = "shortcut-synthetic"
sources = sys.argv[1:] or ["sample:shortcut", HERE / "shortcut-moved.tif", "missing.tif"]

model = seglens.load_model(MODEL)
rows, failed = [], []
for source in sources:
    try:
        image = seglens.open_image(source)
        made = seglens.segment(image, model)
    except seglens.SegLensError as error:
        failed.append(f"{source}: {error.what} {error.fix}")
        continue
    objects, labels = made.objects(), np.asarray(made.labels)
    size = np.prod(image.scale(model.spec.axes))
    for number in range(1, objects.max() + 1):
        mine = objects == number
        kind = model.spec.classes[int(labels[mine][0])].name
        rows.append([image.name, number, kind, round(float(mine.sum() * size), 2), image.unit])

with Path("objects.csv").open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([["image", "object", "class", "area", "unit"], *rows])
print(f"Written: objects.csv with {len(rows)} objects of {len(sources) - len(failed)} images")
print(*failed, sep="\n")
