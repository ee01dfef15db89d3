"""Every sentence that a person reads in the plugin, in one place."""

from __future__ import annotations

from collections.abc import Sequence

DOCS = "https://github.com/seglens/seglens/tree/main/docs"
TITLE = "SegLens"

# The header.
NO_IMAGE = "No image yet"
NO_IMAGE_HINT = "Open an image, or choose File ▸ Open Sample ▸ SegLens."
AXES_HINT = "What this axis is. Click to change it.\nT time · Z depth · C channel · Y rows · X columns"
HELP_HINT = "Open the documentation in the browser"
GEAR_HINT = "Open the preferences of SegLens"
STARTING = "starting"
STARTING_HINT = "PyTorch is being loaded in the background."

# Why Run is disabled, and what it will do.
READY = "Ready"
PICK_IMAGE = "Choose an image layer at the top."
PICK_MODEL = "Choose a model in the Model tab."
MODEL_LOADING = "The model is being loaded."
ENGINE_STARTING = "PyTorch is being loaded."
MODEL_UNTRUSTED = "This model needs your trust first."
PICK_OUTPUT = "Tick at least one output."
PICK_METHOD = "Choose a method."
PICK_SPOT = "Press “Pick” and click in the image."
CLICK_SPOT = "Click in the image."
OUTSIDE = ("That is outside the image.", "Click inside it.")
PICK_LABELS = "Choose the Labels layer that the method asks for."
PICK_BANK = "Open or build the feature bank that the method asks for."
PAINT_FIRST = "Press “New target layer” and paint what to explain."
NO_SHAPES = "Draw a region on a Shapes layer first."
CANCELLING = "Stopping after this tile…"
STOPPED = "Stopped. What was finished is kept."
SO_FAR = "{title} (so far)"
STOPPED_EARLY = "{title} (stopped early)"
KEPT_EARLY = "{title} was stopped. What it had found until then is kept as “{name}”."
BUSY = "SegLens is busy."
LAYER_GONE = "{name} was deleted while SegLens worked on it; the result was dropped."

SCOPES = {
    "view": ("View", "What you see: the visible part of the current slice."),
    "regions": ("Regions", "Boxes around the shapes of the top Shapes layer; only the selected ones, if any are."),
    "slice": ("Slice", "The whole current slice, or the volume for a 3-D model."),
    "all": ("All", "Everything: every slice and every time point."),
}
OUTPUTS = {
    "labels": ("Prediction", "The class of every pixel."),
    "probabilities": ("Probabilities", "One map per class, from 0 to 1."),
    "uncertainty": ("Uncertainty", "How undecided the model is at every pixel (entropy): bright is undecided."),
}
REGIONS = {
    "predicted": ("The whole class", "Every pixel that the model gives to the class."),
    "painted": ("What I paint", "Paint 1 where you ask why, and 2 for what counts against."),
    "object": ("One object", "Click on an object that the model found."),
    "point": ("One pixel", "Click on a pixel."),
    "border": ("The border", "Why is the line here and not further in or out?"),
}
VALUES = {
    "logit": "score before softmax",
    "probability": "probability",
    "log-probability": "log of the probability",
    "margin": "lead over the next class",
    "dice": "overlap with the mask (Dice)",
}
ANY_CLASS = "the class predicted there"
ANY_CLASS_WHOLE = "the largest class"
SEARCH = "Search {count} methods"
SEARCH_HINT = "A name, a family, or a word of what it does. Enter takes the first, ↓ goes to the list."
FAMILIES = {
    "gradient": "Gradients and activations: one pass or a few, seconds.",
    "perturbation": "Changed copies of the image: many forward passes.",
    "counterfactual": "What would have to be different: some forward passes.",
    "prototype": "Examples that look alike: needs a bank.",
    "architecture": "Looks at how the network itself decides.",
}
NEEDS = {
    "reference": "Needs reference images: on the command line or from Python.",
    "annotation": "Needs a Labels layer of yours.",
    "training": "Trains a small network first, once; then it is quick.",
    "second model": "Needs a second model: on the command line or from Python.",
    "dropout": "Needs a network that was trained with dropout.",
    "bank": "Needs a feature bank: choose or build one below the list.",
}
TAKES = {
    "reference": "Takes reference images, too: on the command line or from Python.",
}
NO_MATCH = "No method of that name. Clear the search to see all."
LABELS_HINT = "Your own labels: each number is taken away as one, or is what the method asks for"
LABELS_NONE = "none yet"
LABELS_EMPTY = "There is no Labels layer with the shape of the image. Add one with napari's New Labels button and draw."
BANK = "Feature bank"
BANK_NONE = "none yet"
BANK_HINT = "Examples that the method looks up; they must be what the chosen model made of them"
BANK_OPEN = "Open…"
BANK_BUILD = "Build…"
BANK_BUILD_HINT = "Let the model look at a folder of images, and keep what it makes of each object"
BANK_EMPTY = (
    "A feature bank holds what the model made of many examples, and where each is from. Open one, or build one from a "
    "folder of images."
)
BANK_TOLD = "{count} examples ({kind}) of {images} images, from layer {layer}"
BANK_OTHER = "This bank is of {wanted}; the chosen model is {have}. Build one of this model."
BANK_BUILDING = "Feature bank"
BANK_BUILT = "{name} holds {told}."
BANK_FOLDER = "Images"
BANK_FOLDER_HINT = "A folder of images that the model reads"
BANK_MASKS = "Masks"
BANK_MASKS_HINT = "A folder of true masks, called like the images; leave it empty if there are none"
BANK_KIND = "Of each"
BANK_KINDS = {
    "object": ("object", "Each connected part that the model draws"),
    "patch": ("patch", "Windows side by side"),
    "pixel": ("pixel", "Pixels drawn by chance"),
}
BANK_LAYER = "Layer"
BANK_LAYER_AUTO = "auto"
BANK_LAYER_HINT = "Whose channels are kept; auto takes what the head of the network reads"
BANK_GROUP = "Groups"
BANK_GROUPS = {
    "file": ("each file alone", "An example is never looked up in its own image"),
    "folder": ("each folder together", "For slides or patients with a folder each"),
}
BANK_START = "Build the bank"
BANK_CHOOSE = "choose…"
ESTIMATING = "Working out what it takes…"
COMPARE_FILLS = "Compare fills"
COMPARE_FILLS_HINT = (
    "Runs the method once for every fill and shows where the maps differ: there the answer depends on the fill."
)
FILLS_TITLE = "{title}: fills compared"
ALL_LAYERS = "All layers"
ALL_LAYERS_HINT = "Runs the method at one layer after another; a slider then goes from encoder to decoder."
STRIPS = {"depths": "One for each depth ({count})", "all": "Every layer ({count})"}
STRIP_TITLES = {"depths": "{title}: every depth", "all": "{title}: every layer"}
STRIP_DONE = "{title} ready in {took}: {count} layers. The slider below the image goes through them."
DEPTH = "{name} ({at} of {count})"
FIDELITY = {"exact": "", "small": "The published method with a smaller network.", "after": "Our formulation, after {}."}

MODEL_PLACEHOLDER = "Choose a model…"
MODEL_FILE = "Open a file…"
MODEL_FOLDER = "Open a folder…"
MODEL_EMPTY = (
    "A model draws the lines that SegLens explains.\n"
    "Choose one that comes with SegLens, or open your own: TorchScript, .pt2, safetensors, "
    "a bioimage.io package or a MONAI bundle."
)
SUGGESTED = "Suggested because it reads {channels}."
TRUST_BUTTON = "Trust this file"
TRUST_HINT = "Loads it now, and remembers the answer for exactly this file."
RESULT_EMPTY = "Maps that you make appear here. Tick two or more to see them side by side."
COMPARE = "Compare in grid"
COMPARE_STOP = "Leave the grid"
PLOTS = "Plots and tables"
PLOTS_TITLE = "SegLens plots"
PLOTS_HINT = "The numbers behind this map, below the picture"
PLOTS_EMPTY = "Plots and tables of the map that you choose under Maps appear here, if its method makes any."
PLOTS_NONE = "{title} answers with maps only: it has no plot and no table."
FIGURE_EMPTY = "Nothing was measured here."
TABLE_TAB = "{name} (table)"
TABLE_HINT = "Click a row to go there."
COPY_TABLE = "Copy"
COPY_TABLE_HINT = "All rows, as text that spreadsheets understand"
SAVE_TABLE = "Save CSV…"
SAVE_TABLE_HINT = "All rows, with all digits"
SAVE_PICTURE = "Save picture…"
SAVE_PICTURE_HINT = "This plot as PNG, SVG or PDF"
TABLE_COPIED = "Copied {rows} rows. Paste them into a spreadsheet."
SAVED = "Saved {path}."
ROW_NOWHERE = "The image that this row is about is no longer open."
COPIED = "Copied. Paste it into a {where}."
NOTHING_TO_COPY = "Select a layer that SegLens made; then its run can be copied."
NO_VIEWER = "There is no viewer open."
PICKING = "Click in the image. Esc leaves."
FOLLOW = "Explain where I click"
FOLLOW_HINT = (
    "Each click asks about the pixel or object there. While the button is down, quick methods follow the pointer."
)
FOLLOWING = "{title}: {what}"
WARMING = "Looking at the image"
PICKING_SHORT = "click, or Esc"
SIGN = {1: "paint for (1)", 2: "paint against (2)"}

ROLES = {"prediction": "prediction", "uncertainty": "uncertainty map", "heat": "saliency map"}

KEYS = {
    "segment_view": "Shift-S",
    "segment_all": "Shift-D",
    "explain_target": "Shift-E",
    "toggle_sign": "Shift-T",
    "toggle_prediction": "Shift-F",
    "toggle_uncertainty": "Shift-U",
    "toggle_heat": "Shift-H",
    "add_to_gallery": "Shift-G",
    "gallery_undo": "Shift-Z",
    "gallery_redo": "Shift-Y",
}


def with_key(text: str, command: str) -> str:
    """A button's text with its shortcut."""
    return f"{text}  [{KEYS[command]}]" if command in KEYS else text


def axes_problem(image_axes: str, model_axes: str, model: str) -> str:
    """The axes of the image lack one that the model needs."""
    missing = ", ".join(a for a in model_axes if a not in image_axes)
    return f"{model} needs the axis {missing}. Click an axis letter at the top to name it."


def channel_problem(want: Sequence[str], have: int) -> str:
    """The channel mapping is incomplete."""
    return f"The model reads {len(want)} channels ({', '.join(want)}) and the image has {have}. Map them below."


def pixel_note(image: float, model: float, unit: str) -> str:
    """What a different pixel size means."""
    factor = model / image
    look = "larger" if factor > 1 else "smaller"
    times = factor if factor > 1 else 1 / factor
    return (
        f"Pixels are {image:g} {unit} here and {model:g} {unit} in training: "
        f"things look {times:.1f} times {look} to the model than it learned."
    )


def pixel_fine(image: float, unit: str) -> str:
    """The pixel size fits."""
    return f"{image:g} {unit}, as in training"


def progress(text: str, done: int, total: int, rate: float) -> str:
    """The line above the progress bar."""
    speed = f" · {rate:.1f}/s" if rate >= 0.1 else ""
    return f"{text or 'steps'} {done} of {total}{speed}"


def took(seconds: float) -> str:
    """How long it took."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def finished(what: str, seconds: float) -> str:
    """A run is over."""
    return f"{what} ready in {took(seconds)}."


def stopped(what: str) -> str:
    """A run was cancelled."""
    return f"{what} stopped. What was finished is kept."


def not_saved(path: str, error: OSError) -> tuple[str, str]:
    """A file could not be written: what happened, and what to do."""
    return f"{path} could not be written: {error.strerror or error}.", "Choose another folder or name."


def unexpected(error: BaseException) -> tuple[str, str]:
    """An error that nobody foresaw: what happened, and what to do."""
    told = str(error).strip().splitlines()
    detail = f": {told[0]}" if told and told[0] else ""
    return (
        f"SegLens met an error it does not know ({type(error).__name__}{detail}).",
        "Nothing was changed. The details are in napari's console log; report them with Help ▸ Report an issue.",
    )
