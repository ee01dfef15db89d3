"""Every sentence of the projection dock."""

from __future__ import annotations

TITLE = "SegLens projection"
EMPTY = (
    "A feature bank as points: what lies together looks alike to the network.\n"
    "Press “Bank…” to open one, or build one in the prototype gallery."
)
BANK = "Bank…"
BANK_HINT = "Open the folder of a feature bank"
BANK_ABOUT = "{name}: {shown} of {total} examples; components 1 and 2 hold {explained:.0%} of the variance."
COLOURS = {"cluster": "By cluster", "iou": "By IoU", "class": "By class", "group": "By group"}
COLOUR_HINT = "What the colours of the points say"
CLUSTERS = {"kmeans": "k-means", "dbscan": "DBSCAN"}
CLUSTERS_HINT = "How clusters are found; DBSCAN leaves lonely points grey"
K_HINT = "How many clusters; 0 chooses by the silhouette"
K_AUTO = "auto"
AXES_HINT = "Which components are drawn"
AXIS = "component {number} ({share:.0%})"
HEAT = "IoU map"
HEAT_HINT = "The mean IoU of the nearest points, under the points: where the plane is dark, the model fails"
HEAT_NONE = "No masks came with this bank, so no IoU is known."
SHOW = "Show in gallery"
SHOW_HINT = "The selected points as thumbnails"
CONCEPT = "Use as concept"
CONCEPT_HINT = "Ask with Concept vectors whether what the model draws follows the selected points"
CONCEPT_SET = "Concept vectors will ask about {count} points. Press Explain."
CONCEPT_MORE = "A concept needs {least} points or more; {count} are selected."
CLEAR = "Clear"
CLEAR_HINT = "Select nothing"
STOP = "Stop"
STOP_HINT = "Work out no more; what is drawn stays"
STOPPED = "Stopped."
NOTHING = "Draw a lasso around points, or click one."
SELECTED = "{count} points selected"
SELECTED_IOU = "{count} points selected, mean IoU {iou:.2f} (all: {every:.2f})"
PROJECTING = "Projecting the bank"
TABLE_ALL = "objects"
POINTS_TITLE = "{count} selected points"
NOISE = "alone"
CLUSTER = "cluster {number}"
FURTHER = "further"
UNKNOWN = "unknown"
MARKS = "selected in the projection"
POINT = "row {row}: {label}{truth}\n{name}{iou}"
TRUTH = " (truth: {truth})"
IOU = ", IoU {iou:.2f}"


def rows_text(rows: list[int]) -> str:
    """Row numbers as ``3,5,8-20``."""
    parts: list[str] = []
    start = last = -2
    for row in [*sorted(rows), None]:
        if row is not None and row == last + 1:
            last = row
            continue
        if start >= 0:
            parts.append(str(start) if start == last else f"{start}-{last}")
        start = last = -2 if row is None else row
    return ",".join(parts)
