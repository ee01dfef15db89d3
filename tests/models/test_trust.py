"""Where user files lie; trust is asked once, remembered by sha256, and never guessed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seglens.core.errors import BadParameter, ModelMismatch, UnknownName, UntrustedModel
from seglens.core.places import home, write_whole
from seglens.models import zoo as shelf
from seglens.models.trust import BOOK, Trust, grant, granted, revoke, sha256_of

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_home_is_made_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path / "a" / "b"))
    assert home() == tmp_path / "a" / "b"
    assert home().is_dir()


def test_home_without_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEGLENS_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert "seglens" in str(home())


def test_home_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path / "file" / "in"))
    with pytest.raises(BadParameter) as caught:
        home()
    assert str(tmp_path) in caught.value.what
    assert "SEGLENS_HOME" in caught.value.fix


def test_write_whole_leaves_no_draft(tmp_path: Path) -> None:
    write_whole(tmp_path / "x.json", "one")
    write_whole(tmp_path / "x.json", "two")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == "two"
    with pytest.raises(BadParameter):
        write_whole(tmp_path / "missing" / "x.json", "three")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == ABC
    with pytest.raises(ModelMismatch) as caught:
        sha256_of(tmp_path / "y")
    assert caught.value.fix


def test_refused_then_granted_then_remembered_then_revoked() -> None:
    with pytest.raises(UntrustedModel) as caught:
        Trust.never().ask("net.py", ABC, "is code")
    assert (caught.value.sha256, ABC in caught.value.what) == (ABC, True)
    assert "--trust" in caught.value.fix
    assert granted() == {}
    Trust.always().ask("net.py", ABC, "is code")
    assert granted()[ABC]["name"] == "net.py"
    Trust.never().ask("net.py", ABC, "is code")
    assert Trust.never().holds(ABC)
    revoke(ABC)
    assert not Trust.never().holds(ABC)


def test_the_plugin_can_grant_what_the_error_names() -> None:
    try:
        Trust.never().ask("net.py", ABC, "is code")
    except UntrustedModel as refused:
        grant(refused.sha256, "net.py")
    Trust.never().ask("net.py", ABC, "is code")


@pytest.mark.parametrize("text", ["{", "[]", "", "\x00"])
def test_a_broken_list_asks_again(own_home: Path, text: str) -> None:
    (own_home / BOOK).write_text(text)
    with pytest.raises(UntrustedModel):
        Trust.never().ask("net.py", ABC, "is code")
    Trust.always().ask("net.py", ABC, "is code")
    assert Trust.never().holds(ABC)


def test_the_shelf_and_its_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nuclei_fluorescence").mkdir()
    (tmp_path / "nuclei_fluorescence" / "model.json").write_text("{}")
    (tmp_path / "unfinished").mkdir()
    monkeypatch.setattr(shelf, "files", lambda name: tmp_path)
    assert shelf.zoo() == {"nuclei-fluorescence": tmp_path / "nuclei_fluorescence"}
    assert "no card yet" in shelf.card("nuclei-fluorescence")
    (tmp_path / "nuclei_fluorescence" / "CARD.md").write_text("# Nuclei\n")
    assert shelf.card("nuclei-fluorescence") == "# Nuclei\n"
    with pytest.raises(UnknownName) as caught:
        shelf.card("nuclei")
    assert "'nuclei'" in caught.value.what
    assert "seglens models" in caught.value.fix


def test_what_comes_along_has_cards() -> None:
    for name, folder in shelf.zoo().items():
        assert "_" not in name
        assert (folder / "model.json").is_file()
        assert shelf.card(name)


def test_zoo_places_and_trust_need_no_torch() -> None:
    program = (
        "import sys, seglens, seglens.core.places, seglens.models.zoo as z; z.zoo(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
