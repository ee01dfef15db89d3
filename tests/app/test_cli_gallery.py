"""``seglens gallery``: every command does what it says, and what is wrong takes two sentences and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from bad_input import net, squares
from prototypes import tiny
from seglens.app.cli import main
from seglens.app.commands.gallery import COMMANDS
from seglens.engine.prototypes import PrototypeEdit, prototypes_of, save_edited
from seglens.models.loaders import load_model
from seglens.workspace.gallery import Gallery


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's remembered trust is read or changed."""
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path_factory.mktemp("home")))


def call(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, ["gallery", *(str(w) for w in words)])


def done(*words: object) -> str:
    """What a command says that has to work."""
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three images of two squares, a model, its bank, and a gallery of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    for n in range(3):
        tifffile.imwrite(folder / "images" / f"cells {n}.tif", np.roll(squares(), n, 1))
    model = ["--model", net(folder), "--trust", "--device", "cpu"]
    done("bank", folder / "images", *model, "--out", folder / "cells.bank")
    done("make", "--from-bank", folder / "cells.bank", "--per-class", 4, "--out", folder / "cells.gallery")
    return folder


@pytest.fixture
def gallery(made: Path, tmp_path: Path) -> Path:
    """A copy of that gallery, to be edited."""
    with Gallery.open(made / "cells.gallery") as original:
        original.copy(tmp_path / "mine.gallery")
    return tmp_path / "mine.gallery"


def items(gallery: Path, *words: object) -> list[dict]:
    """The items as JSON."""
    return json.loads(done("list", gallery, "--json", *words))


def test_a_gallery_of_a_bank_holds_what_is_typical(made: Path) -> None:
    told = done("list", made / "cells.gallery")
    assert told.splitlines()[0] == "cells: 4 of 4 items"
    found = items(made / "cells.gallery")
    assert [(i["label"], i["status"]) for i in found] == [("cell", "kept")] * 4
    assert all(Path(i["source"]).is_file() for i in found)
    assert items(made / "cells.gallery", "--limit", 2, "--offset", 1, "--order", "id", "--descending")[0]["id"] == 3


def test_edits_are_told_undone_and_kept_in_the_log(gallery: Path) -> None:
    assert done("drop", gallery, 1, 2) == "Dropped items 1 and 2.\n"
    assert done("drop", gallery, 1) == "Nothing changed: it was so already.\n"
    assert done("merge", gallery, 3, "--into", 4) == "Merged item 3 into item 4.\n"
    assert done("relabel", gallery, 1, "--class", "background") == "Relabelled item 1 as background.\n"
    done("note", gallery, 2, "blurred")
    assert "merged into 4" in done("list", gallery)
    assert "blurred" in done("list", gallery, "--status", "dropped", "--class", "cell")
    assert done("undo", gallery) == "Undid: wrote on item 2. Next would be: relabelled item 1 as background.\n"
    assert done("redo", gallery) == "Redid: wrote on item 2.\n"
    assert done("keep", gallery, 1, 3) == "Kept items 1 and 3.\n"
    history = done("history", gallery, "--limit", 3).splitlines()
    assert [line.split("  ")[3] for line in history] == [
        "undid: wrote on item 2", "redid: wrote on item 2", "kept items 1 and 3",
    ]  # fmt: skip
    while call("undo", gallery).exit_code == 0:
        pass
    assert items(gallery) == []


def test_a_box_an_object_and_a_mask_are_added(made: Path, gallery: Path, tmp_path: Path) -> None:
    image, model = made / "images" / "cells 1.tif", ["--model", net(made), "--trust", "--device", "cpu"]
    assert done("add", gallery, image, "--box", "2,3:9,11", "--class", "cell") == "Added item 5: cell of cells 1.\n"
    done("add", gallery, image, "--object-at", "6,9", *model, "--note", "the left one")
    mask = np.zeros((24, 32), np.uint8)
    mask[14:18, 20:26] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    done("add", gallery, image, "--region", tmp_path / "mask.tif", "--class", "cell", "--group", "slide 9", *model)
    done("add", gallery, image, "--point", "3,4", "--crop", "Y=10:24", "--class", "background")
    box, thing, painted, point = items(gallery)[4:]
    assert (box["box"], box["position"]) == ([[2, 9], [3, 11]], [5, 7])
    assert (thing["label"], thing["box"], thing["note"]) == ("cell", [[4, 12], [6, 14]], "the left one")
    assert (painted["box"], painted["group"]) == ([[14, 18], [20, 26]], "slide 9")
    assert (point["position"], point["label"]) == ([13, 4], "background")
    with Gallery.open(gallery) as one:
        assert [one.vector(i["id"]) is None for i in (box, thing, painted, point)] == [True, False, False, True]


def test_leaks_and_coverage(made: Path, gallery: Path, tmp_path: Path) -> None:
    image, model = made / "images" / "cells 1.tif", ["--model", net(made), "--trust", "--device", "cpu"]
    from_it = [str(i["id"]) for i in items(gallery) if i["name"] == "cells 1"]
    told = done("leaks", gallery, image)
    assert from_it
    assert all(number in told.splitlines()[0] for number in from_it)
    np.save(tmp_path / "other.npy", np.zeros((24, 32)))
    assert "No item" in done("leaks", gallery, tmp_path / "other.npy")
    shares = done("coverage", gallery, image, *model, "--keep").splitlines()
    assert sum(float(line.split("%")[0]) for line in shares) == pytest.approx(100, abs=0.2)
    assert sum(i["activity"] for i in items(gallery)) == pytest.approx(1)


def test_images_that_moved_are_found(made: Path, gallery: Path) -> None:
    assert done("relocate", gallery, made) == "No image is missing.\n"
    (made / "images").rename(made / "pictures")
    try:
        assert "(missing)" in done("list", gallery)
        told = done("relocate", gallery, made)
        count = len({i["source"] for i in items(gallery)})
        assert told == f"{count} of {count} missing images were found again, for 4 items.\n"
        done("undo", gallery)
        assert "still missing" in done("relocate", gallery, made / "cells.bank")
    finally:
        (made / "pictures").rename(made / "images")


def test_out_as_page_table_and_folder_and_back(gallery: Path, tmp_path: Path) -> None:
    done("drop", gallery, 2)
    done("export", gallery, "--html", tmp_path / "p.html", "--csv", tmp_path / "t.csv", "--folder", tmp_path / "out")
    assert (tmp_path / "p.html").read_text().count("<figure ") == 4
    done("import", tmp_path / "out", "--out", tmp_path / "b.gallery")
    assert items(tmp_path / "b.gallery") == items(gallery)
    assert "4 items; the gallery has 8 now" in done("import", tmp_path / "t.csv", "--into", gallery)


def test_a_gallery_of_a_prototype_network(tmp_path: Path) -> None:
    folder = save_edited(tiny(), PrototypeEdit(), tmp_path / "model")
    assert "2 background, 2 cell" in done("make", "--model", folder, "--device", "cpu", "--out", tmp_path / "p.gallery")
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((16, 16), np.float32))
    told = done("coverage", tmp_path / "p.gallery", tmp_path / "image.npy", "--model", folder, "--device", "cpu")
    assert "item" in told
    done("drop", tmp_path / "p.gallery", 3)
    done("relabel", tmp_path / "p.gallery", 1, "--class", "cell")
    told = done("apply", tmp_path / "p.gallery", "--device", "cpu", "--out", tmp_path / "edited")
    assert "1 dropped, 1 of another class" in told
    again = prototypes_of(load_model(str(tmp_path / "edited"), device="cpu"))
    assert [(p.number, p.label) for p in again] == [(1, "cell"), (2, "background"), (4, "cell")]


WRONG = {
    "no gallery": (["list", "NOWHERE"], "holds no gallery", "gallery make"),
    "no such item": (["drop", "GALLERY", "99"], "no item 99", "gallery list"),
    "no such class": (["relabel", "GALLERY", "1", "--class", "cel"], "'cel'", "Did you mean cell?"),
    "into itself": (["merge", "GALLERY", "1", "--into", "1"], "cannot be merged", "is not one of them"),
    "nothing to redo": (["redo", "GALLERY"], "nothing to redo", "history"),
    "no place": (["add", "GALLERY", "IMAGE", "--class", "cell"], "which part", "--box"),
    "no class": (["add", "GALLERY", "IMAGE", "--point", "1,1"], "which class", "background, cell"),
    "an object without a model": (["add", "GALLERY", "IMAGE", "--object", "1", "--class", "cell"], "model", "--model"),
    "no image": (["add", "GALLERY", "NOWHERE", "--point", "1,1", "--class", "cell"], "no file", "Check"),
    "outside": (["add", "GALLERY", "IMAGE", "--point", "1,99", "--class", "cell"], "outside", "pixel"),
    "two places": (["add", "GALLERY", "IMAGE", "--point", "1,1", "--object", "1"], "together", "one of them"),
    "another model": (["coverage", "GALLERY", "IMAGE", "--model", "OTHER", "--device", "cpu"], "not of this", "make"),
    "made of nothing": (["make", "--out", "NEW"], "one of them", "--from-bank"),
    "made of no bank": (["make", "--from-bank", "NOWHERE", "--out", "NEW"], "no feature bank", "gallery bank"),
    "no prototypes": (["make", "--model", "shortcut-synthetic", "--out", "NEW"], "no prototype layer", "proto"),
    "applied to no prototypes": (
        ["apply", "GALLERY", "--model", "MODEL", "--trust", "--out", "NEW"],
        "no prototype",
        "proto",
    ),
    "made where something is": (["make", "--from-bank", "BANK", "--out", "GALLERY"], "not empty", "--out"),
    "exported as nothing": (["export", "GALLERY"], "as what", "--html"),
    "imported to nowhere": (["import", "NOWHERE"], "where the items go", "--into"),
    "imported from nothing": (["import", "NOWHERE", "--out", "NEW"], "no table", "CSV"),
    "relocated to nothing": (["relocate", "LOST", "NOWHERE"], "no folder", "folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_takes_two_sentences(made: Path, gallery: Path, tmp_path: Path, name: str) -> None:
    words, what, fix = WRONG[name]
    with Gallery.create(tmp_path / "lost.gallery", classes=["cell"]) as lost:
        crop = np.zeros((3, 3), np.uint8)
        lost.add(label="cell", crop=crop, position=(1, 1), box=((0, 3), (0, 3)), source=str(tmp_path / "gone.tif"))
    places = {
        "NOWHERE": tmp_path / "nowhere", "GALLERY": gallery, "IMAGE": made / "images" / "cells 0.tif",
        "NEW": tmp_path / "new", "BANK": made / "cells.bank", "LOST": tmp_path / "lost.gallery",
        "OTHER": "shortcut-synthetic", "MODEL": net(made),
    }  # fmt: skip
    result = call(*[places.get(word, word) for word in words])
    assert result.exit_code == 2, result.output
    said, remedy = result.output.removeprefix("Error: ").strip().split("\n")
    assert what in said
    assert fix in remedy
    assert "Traceback" not in result.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    assert len(done(name, "--help").splitlines()) > 4
    assert name in call("--help").output


def test_looking_at_a_gallery_imports_no_torch(gallery: Path) -> None:
    code = (
        f"from seglens.app.cli import main; main(['gallery', 'list', {str(gallery)!r}], standalone_mode=False); "
        "import sys; heavy = {'torch', 'napari', 'skimage', 'zarr'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
