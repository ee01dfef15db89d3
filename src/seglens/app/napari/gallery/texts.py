"""Every sentence of the prototype gallery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seglens.engine.features import Entry
    from seglens.workspace.gallery import Item

TITLE = "Prototype gallery"
NAMELESS = "unnamed image"
NO_PICTURE = "no picture"
ROWS = "{count} rows of {bank}"

EMPTY = (
    "A gallery holds examples: places in images that stand for a class.\n"
    "Press “Gallery” to make one from the prototypes of the model, from a feature bank, or to open one."
)
NO_MATCH = "Nothing in this gallery fits the filters. Clear them to see all {count}."
NO_ITEMS = "This gallery is empty. Paint a region or click an object, and press “Add”."
NO_ROWS = "No rows of the bank are selected."

# The button with the menu, and the filters.
GALLERY = "Gallery"
GALLERY_HINT = "Make, open, save, import and export galleries"
MENU = {
    "model": ("New from the model's prototypes", "One item for each prototype of the chosen network"),
    "blank": ("New empty gallery…", "For regions and objects that you add yourself"),
    "bank": ("Look through a feature bank…", "All its examples as thumbnails, to choose from"),
    "rows": ("New from these rows…", "A gallery of the selected rows of the bank, or of all that are shown"),
    "points": ("Show a feature bank as points", "What looks alike lies together; where does the model fail?"),
    "open": ("Open…", "A folder that holds a gallery"),
    "save": ("Save a copy as…", "The whole gallery in another folder; every edit is saved already"),
    "import": (
        "Import…",
        "A table of items, or the table of an exported folder: into this gallery, or a new one",
    ),
    "html": ("Export as a page (HTML)…", "One file with all pictures, for a browser"),
    "table": ("Export as a table (CSV)…", "One line for each item"),
    "folder": ("Export to a folder…", "Table and pictures, to be imported elsewhere"),
    "activity": (
        "Measure activation here",
        "How much each item explains of this image, kept for sorting",
    ),
    "network": ("Save the edited network…", "A model folder of its own, with the prototypes of this gallery"),
    "relocate": ("Find missing images…", "A folder to search for images that were moved"),
    "history": ("History", "Who did what, and when"),
    "close": ("Close", "The gallery stays in its folder"),
}
ALL_CLASSES = "All classes"
ALL_IMAGES = "All images"
CLASS_HINT = "Show one class only"
IMAGE_HINT = "Show the items of one image only"
STATUSES = {"kept": "Kept", "dropped": "Dropped", "merged": "Merged", None: "All"}
STATUS_HINT = "Kept items count. Dropped and merged ones are still here."
ORDERS = {
    "label": "By class",
    "activity": "By activation",
    "age": "By age",
    "image": "By image",
    "id": "By number",
}
ORDER_HINT = "The order of the items"
TURN_HINT = "Turn the order round"
SEARCH = "Search"
SEARCH_HINT = (
    "Words of the class, the image, the group or the note.\n"
    "activity>0.1 or activity<0.1: by activation · age<7 or age>7: by days since it was added\n"
    "/ goes here, Enter goes back."
)

# What can be done: the button, its key, and what it does.
VERBS = {
    "keep": ("Keep", "K", "Let the selected items count again"),
    "drop": ("Drop", "Del", "Let the selected items count no more; they stay under “Dropped”"),
    "merge": ("Merge", "M", "Let the selected items be parts of the one with the dotted frame"),
    "relabel": ("Relabel", "L", "Let the selected items stand for another class"),
    "add": ("Add", "A", "Add what you painted, or the object that you click"),
    "undo": ("Undo", "⇧Z", "Take back: {what}"),
    "redo": ("Redo", "⇧Y", "Do again: {what}"),
    "why": ("Why this pixel", "W", "Click a pixel of the mask: which prototypes made it so, and how much each counted"),
}
NOTHING_TO = {"undo": "Nothing to take back.", "redo": "Nothing to do again."}
ADD_PAINTED = "What I painted"
ADD_OBJECT = "An object: click it in the image"
ADDED_FROM = "added a region of {name}"

OPEN_FIRST = "Open a gallery first."
SELECT_FIRST = "Select items first: click one, or hold Ctrl or Shift and click more."
MERGE_CLASSES = "Items of several classes cannot be merged. Relabel them first."
SELECT_TWO = "Select two or more items; the one with the dotted frame takes the others in."
BANK_ONLY = "These are rows of a feature bank. To edit them, make a gallery: Gallery ▸ New from these rows."
ROWS_FIRST = "Look through a feature bank first."
BUSY = "One thing at a time: wait, or press Stop."
STOPPED = "Stopped."
STOP = "Stop"
MAKING = "Making the gallery"
SAVING = "Saving"
IMPORTING = "Importing"
NO_NETWORK = "This gallery is not of the chosen network. Load it first."
SEARCHING = "Searching for images"
NAME_FOLDER = "Name a new folder"
NAME_IT = "Name the new gallery"
NEEDS_DOCK = "Choose a model in SegLens first (Plugins ▸ SegLens)."
LOADING = "The model is being loaded."
NEEDS_IMAGE = "Choose an image in SegLens first."
NO_PROTOTYPES = "{model} has no prototype layer, so this is not known for it."
OTHER_MODEL = "not known: the gallery is of {wanted}, and {have} is chosen"
NO_VECTOR = "Item {id} has no vector, so where else it fires is not known."
DONE = {
    "keep": "Kept {what}.",
    "drop": "Dropped {what}.",
    "merge": "Merged {what}.",
    "relabel": "{what} now stands for {label}.",
}
NOTHING_CHANGED = "Nothing changed: {what} was so already."
UNDONE = "Took back: {what}."
REDONE = "Did again: {what}."
ADDED = "Added item {id}, {label}."
ELSEWHERE = "Edited elsewhere: {what} ({person})."
GONE = "The gallery {name} can no longer be read: {what}"
OPENED = "{title}: {count} items."
SAVED = "Saved {path}."
IMPORTED = "Imported {count} items."
FOUND = "{count} items have their image again; {left} are still missing."
NONE_MISSING = "No image is missing."
CLICK_OBJECT = "Click an object of the mask to add it. Esc leaves."
CLICK_PIXEL = "Click a pixel of the mask. Esc leaves."
NOTHING_PAINTED = "There is no layer to take a painted region from."
PAINT_FIRST = "Choose or make one in SegLens under Explain ▸ What I paint, or add an object instead."
OUTSIDE = "That is outside the image."

# Going to an item, and what is shown there.
MISSING = "{name} is not where it was ({source}). The item stays; Gallery ▸ Find missing images searches for it."
NEVER_A_FILE = "Where {name} lies is not known. Open it in napari and try again: it is known by its pixels."
OPENING = "Opening {name}"
ITEM = "item {id}"
MAP = "where item {id} fires"
MAP_TOLD = "Similarity to item {id} ({label}) in {name}: bright is alike."
AFTER = "mask after edit"
DIFFERENCE = "difference"
SAME = "The mask is the network's own ({seconds:.2f} s)."
CHANGED = "Pixels, against the network's own mask: {told} ({seconds:.2f} s)."
CHANGES = ("more", "fewer", "of another class")
IMAGE_GONE = "image missing"
TOO_LARGE = "The mask is shown after an edit for up to {most} megapixels. Choose View or Regions in the Model tab."

# Coverage and leak.
COVERAGE = "Explained by"
COVERAGE_HINT = "Whose weight is largest at how many pixels of the image. Click a part to find its item."
COVERAGE_EMPTY = "not known: choose the network of this gallery, and an image"
COVERAGE_NOTHING = "no item speaks for anything in this image"
COVERAGE_PART = "{share:.1f} % of the pixels of {image}: item {item} ({label}) counts most there"
COVERAGE_REST = "{share:.1f} %: {count} further items"
COVERAGE_NONE = "{share:.1f} %: no kept item speaks for the class there"
LEAK = "{count} from this image"
LEAK_HINT = (
    "{count} kept items come from the image that is looked at, or from its group. How well the mask fits it says less."
)
NO_LEAK = "no leak"
NO_LEAK_HINT = "No kept item comes from the image that is looked at, nor from its group."

# The panel of a pixel.
WHY_TITLE = "Why {label} at {where}: score {total:.2f}"
WHY_COLUMNS = ("prototype", "class", "similarity", "weight", "product")
WHY_SUM = "sum = score of {label}"
WHY_TOLD = "Each product is how alike the pixel is to a prototype, times what that prototype counts for {label}."
WHY_MORE = "{count} more"
LOGGED = "{what}\n{time} · {person}"
CHOOSE_MODEL = "Load {model}"
CHOOSE_MODEL_HINT = "The network that this gallery is of"
CLOSE_PANEL = "Close this panel"

# The bank of a method.
BANK = "Feature bank"
BANK_NONE = "none yet"
BANK_HINT = "Examples that the method looks up. It must be of the chosen model."
BANK_CHOOSE = "Open…"
BANK_BUILD = "Build…"
BANK_EMPTY = (
    "A feature bank holds what the network made of many examples. Open one, or build one from a folder of images."
)
BANK_ABOUT = "{count} examples ({kind}) of {images} images, layer {layer}"


def caption(item: Item) -> str:
    """The line under a thumbnail."""
    number = f"#{item.id}" if item.prototype is None else f"P{item.prototype}"
    if item.status == "merged":
        return f"{number} in #{item.merged_into}"
    return f"{number} {item.status}" if item.status == "dropped" else f"{number} {item.name}"


def about(item: Item) -> str:
    """What a tooltip says about an item."""
    lines = [f"{item.label} · item {item.id}" + ("" if item.prototype is None else f" · prototype {item.prototype}")]
    lines.append(f"{item.name or NAMELESS} at {', '.join(map(str, item.position))}")
    if item.select:
        lines[-1] += " (" + ", ".join(f"{a.lower()} {n}" for a, n in item.select.items()) + ")"
    if item.activity is not None:
        lines.append(f"activation {item.activity:.3g}")
    if item.status != "kept":
        lines.append(item.status if item.merged_into is None else f"merged into item {item.merged_into}")
    return "\n".join([*lines, *([item.note] if item.note else [])])


def of_entry(entry: Entry) -> str:
    """What a bank knows of a row beside what an item has."""
    told = [] if entry.truth is None else [f"the mask says {entry.truth}"]
    return ", ".join([*told, *([] if entry.iou is None else [f"IoU {entry.iou:.2f}"])])


def with_key(verb: str) -> str:
    """The text of a button with its key."""
    label, key, _ = VERBS[verb]
    return f"{label} [{key}]"


def several(ids: Sequence[int]) -> str:
    """Items in words."""
    return f"item {ids[0]}" if len(ids) == 1 else f"{len(ids)} items"


def changed(counts: Sequence[int], seconds: float) -> str:
    """How much of the mask an edit changed: pixels more, fewer, and of another class."""
    told = [f"{count} {what}" for count, what in zip(counts, CHANGES, strict=True) if count]
    return (
        f"Pixels, against the network's own mask: {', '.join(told)} ({seconds:.2f} s)."
        if told
        else SAME.format(seconds=seconds)
    )
