"""The manifest is valid, all that it names can be imported, and opening a menu imports no torch."""

import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import pytest
from npe2 import PluginManifest

import seglens
from seglens.app.napari import settings
from seglens.sample_data import SAMPLES

FILE = Path(str(files("seglens"))) / "napari.yaml"
MANIFEST = PluginManifest.from_file(FILE)
COMMANDS = {c.id: c.python_name for c in MANIFEST.contributions.commands}


def test_it_is_valid_and_ships_with_the_package():
    MANIFEST.validate_imports()
    assert MANIFEST.name == "seglens"


def test_the_link_at_the_top_shows_the_same_file():
    link = Path(seglens.__file__).parents[2] / "napari.yaml"
    if not link.exists():
        pytest.skip("not a checkout")
    assert link.resolve() == FILE.resolve()


@pytest.mark.parametrize("name", sorted(COMMANDS.values()))
def test_every_command_can_be_imported(name):
    module, _, attribute = name.partition(":")
    assert callable(getattr(import_module(module), attribute))


def test_the_widgets_and_every_sample():
    assert [w.display_name for w in MANIFEST.contributions.widgets] == ["SegLens", "Prototype gallery"]
    assert {s.key: s.display_name for s in MANIFEST.contributions.sample_data} == {
        name: info.title for name, info in SAMPLES.items()
    }


def test_menus_name_known_commands():
    items = [i for menu in MANIFEST.contributions.menus.values() for i in menu]
    assert items
    assert {i.command for i in items} <= set(COMMANDS)


def test_preferences_and_their_defaults_agree():
    told = {
        f"{category}.{name}": prop.default
        for category, group in MANIFEST.contributions.configurations.items()
        for name, prop in group.properties.items()
    }
    assert told == settings.DEFAULTS


def test_the_plugin_imports_no_torch():
    code = (
        "import sys; import seglens.app.napari.dock, seglens.app.napari.commands, seglens.app.napari.samples;"
        "import seglens.app.napari.demo, seglens.app.napari.gallery.widget; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
