"""PNG and JPEG: grey or RGB; transparency is dropped, palettes become their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seglens.core.errors import ImageMismatch
from seglens.core.readers import Pixels

_GREY = {"1": "L", "LA": "L", "La": "L"}


def read(path: Path) -> Pixels:
    """A picture as ``YX`` or ``YXC``.

    Raises:
        ImageMismatch: so large that it has to be cut into tiles first.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        opened = Pillow.open(path)
    except Pillow.DecompressionBombError as error:
        raise ImageMismatch(
            f"{path.name} is too large for a {path.suffix[1:].upper()} file to be read piece by piece.",
            fix="Convert it to OME-Zarr or a tiled TIFF.",
        ) from error
    with opened:
        picture = ImageOps.exif_transpose(opened)
        mode = picture.mode
        if mode in _GREY:
            picture = picture.convert(_GREY[mode])
        elif mode not in ("L", "I", "F", "RGB") and not mode.startswith("I;16"):
            picture = picture.convert("RGB")
        data = np.asarray(picture)
    if data.dtype == np.int32 and data.min(initial=0) >= 0 and data.max(initial=0) < 2**16:
        data = data.astype(np.uint16)  # Pillow reads 16-bit greys into 32 bits
    return Pixels(data, "YXC" if data.ndim == 3 else "YX")


def read_indices(path: Path) -> Pixels:
    """The same, but a palette stays numbers: the way label pictures are kept."""
    from PIL import Image as Pillow

    with Pillow.open(path) as picture:
        if picture.mode == "P":
            return Pixels(np.asarray(picture), "YX")
    return read(path)
