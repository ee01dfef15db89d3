"""Pictures with a planted shortcut."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from seglens.core.errors import BadParameter
from seglens.sample_data.shortcut import HEALTHY, INFECTED, shortcut_image


@pytest.mark.parametrize("size", [128, 160, 256])
def test_a_picture_has_cells_and_rings_beside_the_infected_ones(size: int) -> None:
    for seed in range(4):
        image, classes, instances, marked = shortcut_image(seed, size)
        assert image.shape == classes.shape == instances.shape == marked.shape == (size, size)
        assert image.dtype == np.uint8
        assert np.array_equal(classes > 0, instances > 0)
        assert not (marked & (instances > 0)).any()
        rings, count = ndimage.label(marked)
        sick = {int(n) for n in np.unique(instances[classes == INFECTED])}
        assert count == len(sick)
        for ring in range(1, count + 1):
            assert nearest_cell(rings == ring, instances) in sick


def nearest_cell(ring: np.ndarray, instances: np.ndarray) -> int:
    """The cell next to a ring; it has to be 3 to 6 px away, and every other cell further than 12."""
    away = {
        int(n): float(ndimage.distance_transform_edt(instances != n)[ring].min()) for n in np.unique(instances) if n
    }
    first, second = sorted(away, key=away.__getitem__)[:2]
    assert 3 <= away[first] <= 6.5
    assert away[second] > 8
    return first


def test_moving_the_rings_changes_nothing_else() -> None:
    image, classes, instances, marked = shortcut_image(5)
    other, other_classes, other_instances, moved = shortcut_image(5, markers="healthy")
    assert np.array_equal(classes, other_classes)
    assert np.array_equal(instances, other_instances)
    assert not (marked & moved).any()
    near = ndimage.binary_dilation(marked | moved, iterations=4)
    assert np.array_equal(image[~near], other[~near])


def test_rings_on_all_cells_or_on_none() -> None:
    assert not shortcut_image(5, markers="none")[3].any()
    _, _, instances, marked = shortcut_image(5, markers="all")
    assert ndimage.label(marked)[1] == instances.max()


def test_the_true_sign_is_faint_and_can_be_made_stronger() -> None:
    plain, classes, _, _ = shortcut_image(7, markers="none", granules=0.0)
    usual = shortcut_image(7, markers="none")[0]
    strong = shortcut_image(7, markers="none", granules=0.3)[0]
    change = np.abs(usual.astype(int) - plain)
    assert 1 <= change[classes == INFECTED].max() <= 15
    assert change[classes == HEALTHY].max() <= 2
    assert (strong.astype(int) - plain)[classes == INFECTED].max() > 30


@pytest.mark.parametrize("wrong", [{"size": 10}, {"infected": 2.0}, {"markers": "some"}])
def test_limits_are_told(wrong: dict) -> None:
    with pytest.raises(BadParameter) as caught:
        shortcut_image(0, **wrong)
    assert caught.value.fix


def test_pictures_are_drawn_without_torch() -> None:
    use = "from seglens.sample_data.shortcut import shortcut_image; shortcut_image(0)"
    code = f"import sys; {use}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
