"""A package of a third party, taken from the documentation and really installed, is found everywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DOC = HERE.parent / "docs" / "add-a-method.md"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip has installed the package of the documentation."""
    source, target = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    blocks = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, _ in blocks] == ["seglens_brightness/brightness_gain.py", "pyproject.toml"]
    for name, text in blocks:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    (source / "seglens_brightness" / "__init__.py").touch()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def run(installed, *command):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=HERE.parent, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_command_line_lists_it_with_its_parameters(installed):
    cards = json.loads(run(installed, sys.executable, "-m", "seglens", "methods", "--json"))
    card = next(c for c in cards if c["name"] == "brightness-gain")
    assert card["family"] == "gradient"
    assert card["parameters"][0]["le"] == 100
    assert "--percent" in run(installed, sys.executable, "-m", "seglens", "explain", "brightness-gain", "--help")


def test_form_offers_its_parameters(installed):
    code = """
import numpy, sys
from qtpy.QtWidgets import QApplication
app = QApplication([])
from seglens.core.catalogue import METHODS
from seglens.app.napari.form import Form
form = Form(METHODS["brightness-gain"].parameters(), {}, {})
print(form.values())
"""
    assert "'percent': 10.0" in run(installed, sys.executable, "-c", code)


def test_contract_tests_find_it(installed):
    tests = str(HERE / "methods" / "test_contract.py")
    out = run(installed, sys.executable, "-m", "pytest", "-q", tests, "-k", "brightness-gain", "-p", "no:cacheprovider")
    passed = int(re.search(r"(\d+) passed", out)[1])
    assert passed >= 14
