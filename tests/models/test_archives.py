"""Archives that would do harm are refused before anything is unpacked."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from seglens.core.errors import ModelMismatch
from seglens.models.archives import RATIO_MATTERS_FROM, check_archive, opened
from seglens.models.loaders import load_model


def archive(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def refused(path: Path, part: str) -> None:
    with pytest.raises(ModelMismatch) as caught, opened(path):
        pytest.fail("it was unpacked")
    assert path.name in caught.value.what
    assert part in caught.value.what
    assert caught.value.fix


def test_a_good_archive_is_opened_and_removed(tmp_path: Path) -> None:
    path = archive(tmp_path / "good.zip", **{"a/b.txt": b"text", "c.txt": b"more"})
    assert check_archive(path) == ["a/b.txt", "c.txt"]
    with opened(path) as folder:
        assert (folder / "a" / "b.txt").read_bytes() == b"text"
    assert not folder.exists()
    with opened(tmp_path) as folder:
        assert folder == tmp_path


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/etc/evil", "C:/evil", "..\\evil", "\\\\host\\evil"]
)
def test_path_escape(tmp_path: Path, name: str) -> None:
    path = tmp_path / "slip.zip"
    with zipfile.ZipFile(path, "w") as target:
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        target.writestr(entry, b"evil")
    refused(path, "outside its folder")
    assert not list(tmp_path.parent.glob("evil*"))


def test_links(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as target:
        entry = zipfile.ZipInfo("weights.pt")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        target.writestr(entry, "/etc/passwd")
    refused(path, "link")


def test_bombs(tmp_path: Path) -> None:
    path = archive(tmp_path / "bomb.zip", zeros=b"\0" * (RATIO_MATTERS_FROM + 1))
    refused(path, "-fold")
    small = archive(tmp_path / "small.zip", zeros=b"\0" * 1000)
    with pytest.raises(ModelMismatch) as caught:
        check_archive(small, limit=999)
    assert "GiB" in caught.value.what


def test_password(tmp_path: Path) -> None:
    path = archive(tmp_path / "locked.zip", a=b"text")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "password")


def test_truncated_and_damaged(tmp_path: Path) -> None:
    path = archive(tmp_path / "cut.zip", **{"rdf.yaml": bytes(range(256)) * 100})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "damaged")
    with pytest.raises(ModelMismatch) as caught:
        load_model(path)
    assert "cut short" in caught.value.what
    spoiled = bytearray(whole)
    spoiled[60:90] = b"\xff" * 30
    path.write_bytes(spoiled)
    refused(path, "damaged")
