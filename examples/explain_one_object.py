"""Why is this cell called infected? One object, one method, and the answer in a folder."""

from pathlib import Path

import numpy as np

import seglens

image = seglens.open_image("sample:shortcut")
model = seglens.load_model("shortcut-synthetic")

# What the model draws. Objects are numbered from 1, in reading order.
cells = seglens.segment(image, model)
print(f"{cells.objects().max()} cells, {np.mean(np.asarray(cells.labels) == 2):.1%} of the picture is infected")

# The cell under the pixel y 32, x 105. The class is the one that the model gives to it.
target = seglens.Target(region=seglens.Object(at=(32, 105)))

# Cover everything but the cell itself. If the score drops, the model needs what lies beside the cell.
answer = seglens.explain("occlusion", image, model, target, window=10, stride=10, where="context")
print(answer.text)

# Maps are plain arrays in image coordinates.
ys, xs = np.nonzero(answer["most needed window"].data)
print(f"Look at y {ys.min()} to {ys.max()}, x {xs.min()} to {xs.max()}: there is a bright ring and no cell.")

folder = seglens.save_explanation(answer, Path("why-infected"), image)
print(f"Written: {', '.join(sorted(p.name for p in folder.iterdir()))}")
