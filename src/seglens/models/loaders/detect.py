"""What kind of model a file or folder is, told from its contents and not from its name."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from seglens.core.errors import ModelMismatch, UnknownName
from seglens.models.archives import check_archive
from seglens.models.zoo import zoo

KINDS = (
    "TorchScript, an exported .pt2, a state dict, safetensors, a bioimage.io package, a MONAI bundle or file.py:build"
)
FETCH = f"Give a model file: {KINDS}. If it should be one, fetch it again."
CARDS = ("rdf.yaml", "bioimageio.yaml")
MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"II+\x00": "a TIFF image",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUM": "a NumPy array",
}
LONGEST_HEADER = 100 * 2**20


def locate(source: str | Path) -> tuple[Path, str]:
    """The file or folder that a source means, and the function after the colon of ``file.py:function``.

    Raises:
        UnknownName: there is neither a file nor a shipped model of that name.
    """
    text, shelf = str(source), zoo()
    head, colon, member = text.rpartition(":")
    if colon and head.endswith(".py"):
        text = head
    else:
        member = ""
    path = Path(text).expanduser()
    if path.exists():
        return path, member
    if text in shelf:
        return shelf[text], ""
    listing = f"There is no such file either; shipped models: {', '.join(shelf) or 'none'}. Or give a path."
    raise UnknownName.among("model", text, shelf, listing=listing)


def kind_of(path: Path) -> str:
    """The kind of a model: the name of the loader's module in this folder.

    Raises:
        ModelMismatch: it is no model that can be loaded.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".py":
        return "factory"
    if path.name in CARDS:
        return "bioimageio"
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelMismatch(
            f"{path.name} cannot be read: {error.strerror}.", fix="Check that you may read the file."
        ) from error
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    return _plain(path, head)


def _folder(path: Path) -> str:
    if (path / "model.json").is_file():
        return "folder"
    if any((path / card).is_file() for card in CARDS):
        return "bioimageio"
    if (path / "configs").is_dir():
        return "monai_bundle"
    if (path / "config.json").is_file():
        raise ModelMismatch(
            f"{path.name} looks like a Hugging Face folder, which cannot be loaded directly.",
            fix="Write a net.py with a function build() that returns the network, and give net.py:build.",
        )
    raise ModelMismatch(
        f"The folder {path.name} holds no model: no model.json, rdf.yaml or configs folder is in it.",
        fix="Give the folder that holds one of them, or a model file.",
    )


def _archive(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        raise ModelMismatch(
            f"{path.name} is a zip archive that is cut short.", fix="Fetch it again; the last download did not finish."
        )
    inside = [PurePosixPath(name) for name in check_archive(path)]
    names = {name.name for name in inside}
    # the folder in which everything lies may or may not be part of the archive
    tails = {"/".join(name.parts[-2:]) for name in inside}
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "exported"
    if "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "weights"
    if any(name.name in CARDS and len(name.parts) <= 2 for name in inside):
        return "bioimageio"
    if any(tail.startswith("configs/") for tail in tails):
        return "monai_bundle"
    if "model.json" in names:
        return "folder"
    raise ModelMismatch(f"{path.name} is a zip archive that holds no model.", fix=FETCH)


def _plain(path: Path, head: bytes) -> str:
    if head.startswith(b"\x80"):
        return "weights"
    if _is_safetensors(path, head):
        return "weights"
    if path.name == "model.json":
        return "folder"
    told = next((what for magic, what in MAGIC.items() if head.startswith(magic)), None)
    if told is None:
        told = "empty" if not head else ("a text file" if _is_text(head) else "of a kind that is not known here")
    raise ModelMismatch(f"{path.name} is not a model: it is {told}.", fix=FETCH)


def _is_safetensors(path: Path, head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 9 and head[8:9] == b"{" and 2 <= length <= min(path.stat().st_size - 8, LONGEST_HEADER)


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # the last letter may be cut in two
        return error.start > len(head) - 4
    return b"\x00" not in head
