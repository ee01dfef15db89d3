"""NIfTI (.nii, .nii.gz): axes X, Y, Z, T become T, Z, Y, X; voxel size kept; an uncompressed file stays on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seglens.core.readers import Pixels, unit_name

_AXES = "XYZTC"


def read(path: Path) -> Pixels:
    """A volume or a series of volumes.

    Raises:
        OSError: not a NIfTI file.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        file = nibabel.load(path)
    except ImageFileError as error:
        raise OSError(str(error)) from error
    data = np.asanyarray(file.dataobj)
    while data.ndim > 2 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.dtype == np.float64:
        data = data.astype(np.float32)
    axes = _AXES[: data.ndim] if data.ndim <= len(_AXES) else None
    zooms = file.header.get_zooms()
    size = {a: float(z) for a, z in zip(_AXES[:3], zooms, strict=False) if axes and a in axes and z > 0}
    unit = unit_name(file.header.get_xyzt_units()[0])
    turned = data.transpose(range(data.ndim)[::-1])
    return Pixels(turned, axes[::-1] if axes else None, size, "millimeter" if unit == "unknown" else unit)
