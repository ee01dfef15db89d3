"""What a user installs: a wheel, built and installed into an environment of its own, brings plugin and weights."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECK = """
import importlib, json, sys
from pathlib import Path
import seglens
assert Path(seglens.__file__).is_relative_to(sys.prefix), seglens.__file__
assert "torch" not in sys.modules
from npe2 import PluginManager
manager = PluginManager()
manager.discover()
manifest = manager.get_manifest("seglens")
for command in manifest.contributions.commands:
    module, _, name = command.python_name.partition(":")
    assert callable(getattr(importlib.import_module(module), name)), command
image = seglens.open_image("sample:nuclei-2d")
model = seglens.load_model("nuclei-fluorescence")
result = seglens.segment(image, model)
print(json.dumps({
    "widgets": [w.display_name for w in manifest.contributions.widgets],
    "samples": len(manifest.contributions.sample_data),
    "methods": list(seglens.METHODS),
    "objects": int(result.objects().max()),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("seglens-*.whl"))


def test_wheel_holds_manifest_weights_samples_and_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "seglens/napari.yaml" in names
    assert "seglens/py.typed" in names
    for model in ("nuclei_fluorescence", "nuclei_histology"):
        assert {f"seglens/models/zoo/{model}/{f}" for f in ("weights.safetensors", "model.json", "CARD.md")} <= {*names}
    assert sum(name.startswith("seglens/sample_data/") for name in names) > 5
    assert wheel.stat().st_size < 30e6


def test_wheel_in_a_fresh_environment_shows_the_plugin_and_runs_a_model(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # the dependencies come from here, without what an editable install of seglens left behind
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{sysconfig.get_path('purelib')}"}
    done = subprocess.run([python, "-c", CHECK], env=env, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert '"SegLens"' in done.stdout
    assert "region-replacement" in done.stdout
    assert '"objects": 0' not in done.stdout
