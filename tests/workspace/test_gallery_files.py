"""Galleries go out as a page, a table and a folder, and come back the same."""

from __future__ import annotations

import csv
import json
import re
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from seglens.core.errors import BadParameter, Cancelled, ImageMismatch, SegLensError
from seglens.core.run import Run
from seglens.workspace.gallery import Gallery, NewItem, crop_of, gallery_of_export
from seglens.workspace.gallery.pictures import to_png

EVIL = "<script>alert('x')</script> & \"ü\"\n=2"


@pytest.fixture
def gallery(tmp_path: Path):
    """Six items of all kinds: coloured, grey, with and without vector, picture and place, of all statuses."""
    with Gallery.create(tmp_path / "a.gallery", title=EVIL, classes=["background", "cell", EVIL]) as made:
        rng = np.random.default_rng(0)
        made.add_many(
            NewItem(
                ["cell", EVIL][n % 2], rng.integers(0, 255, (9, 7, 3)[: 2 + n % 2], np.uint8), (3, n), ((1, 5), (0, 8)),
                f"image {n}", EVIL, "sample:nuclei-2d", {"T": n} if n else {}, n or None, n / 7, "=1+1", "'quoted",
                rng.normal(size=5) if n % 3 else None,
            )
            for n in range(5)
        )  # fmt: skip
        made.add_many([NewItem("cell", None, (), ())])
        made.drop([1])
        made.merge([3], 5)
        yield made


def content(gallery: Gallery) -> list[object]:
    """All that an item is."""
    vectors = {number: vector.tolist() for number, vector in gallery.vectors()}
    return [(item, gallery.png(item.id), vectors.get(item.id)) for item in gallery.items()]


def test_a_folder_comes_back_the_same(gallery: Gallery, tmp_path: Path) -> None:
    gallery.export(tmp_path / "out")
    with gallery_of_export(tmp_path / "out", tmp_path / "b.gallery") as back:
        assert content(back) == content(gallery)
        assert replace(back.info, created=gallery.info.created) == gallery.info
        assert back.history(1)[0].what == "imported 6 items from out"
        assert back.undo()
        assert len(back) == 0


def test_into_a_gallery_that_has_items_they_come_with_new_numbers(gallery: Gallery, tmp_path: Path) -> None:
    gallery.export(tmp_path / "out")
    before = content(gallery)
    assert gallery.import_(tmp_path / "out") == 6
    assert content(gallery)[:6] == before
    assert (gallery.item(9).status, gallery.item(9).merged_into) == ("merged", 11)
    np.testing.assert_array_equal(gallery.crop(8), gallery.crop(2))
    assert gallery.undo() == "imported 6 items from out"
    assert content(gallery) == before


def test_a_copy_has_log_and_undo_too(gallery: Gallery, tmp_path: Path) -> None:
    gallery.copy(tmp_path / "c.gallery")
    with Gallery.open(tmp_path / "c.gallery") as copy:
        assert content(copy) == content(gallery)
        assert copy.history() == gallery.history()
        assert copy.undo() == "merged item 3 into item 5"
    assert gallery.item(3).status == "merged"
    with pytest.raises(BadParameter, match="not empty"):
        gallery.copy(tmp_path / "c.gallery")


def test_a_table_alone_gets_its_pictures_from_the_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (30, 40)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "cells.tif", pixels)
    from seglens.core.files import open_image

    image, box = open_image(tmp_path / "cells.tif"), ((3, 9), (4, 20))
    with Gallery.create(tmp_path / "a.gallery", classes=["cell"]) as gallery:
        gallery.add(
            label="cell", crop=crop_of(image, box), position=(5, 5), box=box, image=image.fingerprint(),
            name="cells", source=str(tmp_path / "cells.tif"), note="; , \" '",
        )  # fmt: skip
        gallery.export_table(tmp_path / "table.csv")
        with gallery_of_export(tmp_path / "table.csv", tmp_path / "b.gallery", title="again") as back:
            assert content(back) == content(gallery)
            assert (back.info.title, back.info.classes) == ("again", ("cell",))
        (tmp_path / "cells.tif").unlink()
        with pytest.raises(BadParameter, match=r"table.csv, line 2: There is no file"):
            gallery_of_export(tmp_path / "table.csv", tmp_path / "c.gallery")
        assert not (tmp_path / "c.gallery").exists()


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_table_of_ones_own_needs_two_columns(tmp_path: Path, mark: str) -> None:
    crop = np.arange(12, dtype=np.uint8).reshape(3, 4)
    (tmp_path / "x.png").write_bytes(to_png(crop))
    (tmp_path / "own.csv").write_text(f"label{mark}crop\ncell{mark}x.png\nörtlich{mark}x.png\n", encoding="utf-8-sig")
    with gallery_of_export(tmp_path / "own.csv", tmp_path / "b.gallery") as back:
        assert [item.label for item in back.items()] == ["cell", "örtlich"]
        np.testing.assert_array_equal(back.crop(2), crop)


ROWS = {
    "no such class": ({"label": "celt"}, "line 3: There is no class called 'celt'"),
    "a picture elsewhere": ({"crop": "../secret.png"}, "does not lie beside"),
    "an absolute picture": ({"crop": "/etc/hostname"}, "does not lie beside"),
    "no picture": ({"crop": "crops/none.png"}, "line 3: .*No such file"),
    "not a picture": ({"crop": "items.csv"}, "line 3: cannot identify"),
    "a wrong box": ({"box": "1:5 2"}, "line 3: invalid literal"),
    "a box of three axes": ({"box": "1:5 2:3 4:5"}, "do not fit the axes"),
    "no such status": ({"status": "lost"}, "line 3: The status 'lost'"),
    "merged into nothing": ({"status": "merged", "merged_into": "99"}, "merged into item 99"),
    "merged into itself": ({"status": "merged", "merged_into": "2"}, "itself a part"),
    "a pickle for a vector": ({"vector": "evil.npy"}, "line 3: .*pickle"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_named_and_nothing_is_imported(gallery: Gallery, tmp_path: Path, name: str) -> None:
    change, word = ROWS[name]
    gallery.export(tmp_path / "out")
    (tmp_path / "secret.png").write_bytes(to_png(np.zeros((2, 2), np.uint8)))
    np.save(tmp_path / "out" / "evil.npy", np.array([{"a": 1}]), allow_pickle=True)
    with (tmp_path / "out" / "items.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"], row["name"], row["group"], row["note"] = "cell", "n", "g", ""
    rows[1] |= change
    with (tmp_path / "out" / "items.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    before = content(gallery)
    with pytest.raises(SegLensError, match=word) as told:
        gallery.import_(tmp_path / "out")
    assert told.value.fix
    assert content(gallery) == before


def test_what_is_no_table_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,crop\nx,y\n")
    (tmp_path / "b.csv").write_bytes(b"label\n\xff\xfe")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gallery.json").write_text("{}")
    for source, word in (("a.csv", "label"), ("b.csv", "UTF-8"), ("none.csv", "no table"), ("out", "no table")):
        with pytest.raises(ImageMismatch, match=word):
            gallery.import_(tmp_path / source)
    with pytest.raises(ImageMismatch, match=r"gallery.json cannot be read"):
        gallery_of_export(tmp_path / "out", tmp_path / "b.gallery")


def test_texts_are_no_formulas_in_a_spreadsheet(gallery: Gallery, tmp_path: Path) -> None:
    gallery.export_table(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert not row["group"].startswith(("=", "+", "-", "@"))
            assert row["note"] in ("", "''quoted")


def test_the_page_holds_everything_and_runs_nothing_that_it_was_told(gallery: Gallery, tmp_path: Path) -> None:
    gallery.export_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<figure ") == 6
    assert text.count("data:image/jpeg;base64,") == 5
    assert text.count("no picture") == 1
    assert text.count("<script>") == text.count("</script>") == 1
    assert "alert('x')" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "default-src 'none'" in text
    assert "merged into 5" in text
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_what_cannot_be_written_says_so_and_what_is_stopped_leaves_nothing(gallery: Gallery, tmp_path: Path) -> None:
    for write in (gallery.export_html, gallery.export_table):
        with pytest.raises(BadParameter, match="cannot be written"):
            write(tmp_path / "no" / "such" / "file")
    run = Run()
    run.cancel()
    for write, name in ((gallery.export_html, "p.html"), (gallery.export, "out")):
        with pytest.raises(Cancelled):
            write(tmp_path / name, run)
        assert not (tmp_path / name).exists()
    gallery.export(tmp_path / "out")
    before = content(gallery)
    with pytest.raises(Cancelled):
        gallery.import_(tmp_path / "out", run)
    assert content(gallery) == before
    assert json.loads((tmp_path / "out" / "gallery.json").read_text())["title"] == EVIL


def test_a_large_gallery_is_written_without_holding_its_pictures(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (150, 150, 3), np.uint8)  # does not compress: 68 KB
    with Gallery.create(tmp_path / "a.gallery", classes=["cell"]) as gallery:
        gallery.add_many(NewItem("cell", picture, (1, 1), ((0, 9), (0, 9))) for _ in range(80))
        gallery.export_html(tmp_path / "warm.html")
        start = time.perf_counter()
        tracemalloc.start()
        gallery.export_html(tmp_path / "page.html")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (tmp_path / "a.gallery" / "gallery.sqlite").stat().st_size > 5e6
    assert peak < 2e6, f"{peak / 1e6:.1f} MB"
    assert time.perf_counter() - start < 30
