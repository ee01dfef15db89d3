"""Galleries: every edit is undoable and logged, whoever looks and whatever happens in its middle."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from seglens.core.errors import BadParameter, ImageMismatch, UnknownName
from seglens.workspace.gallery import Gallery, NewItem, database

CROP = np.arange(24, dtype=np.uint8).reshape(4, 6)


def new(label: str = "cell", **more: object) -> NewItem:
    """An item somewhere."""
    return NewItem(label, CROP, (3, 4), ((1, 5), (2, 8)), **more)  # type: ignore[arg-type]


@pytest.fixture
def gallery(tmp_path: Path):
    with Gallery.create(tmp_path / "a.gallery", classes=["background", "cell", "border"], person="Ada") as made:
        yield made


@pytest.fixture
def five(gallery: Gallery) -> Gallery:
    """Five cells, numbered 1 to 5."""
    gallery.add_many(new(image=f"image {n % 2}", activity=float(-n), group=f"slide {n % 2}") for n in range(5))
    return gallery


def told(gallery: Gallery) -> list[tuple[int, str, str, int | None]]:
    """What can be edited, of all items."""
    return [(i.id, i.label, i.status, i.merged_into) for i in gallery.items()]


def test_an_item_comes_back_as_it_went_in(gallery: Gallery) -> None:
    vector = np.array([0.5, -2], np.float32)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    number = gallery.add(
        label="cell", crop=colour, position=(3, 4), box=((1, 5), (2, 8)), image="f00", name="slide <1>",
        source="sample:nuclei-2d", select={"T": 2}, prototype=7, activity=0.25, group="slide", note="ä 'x'",
        vector=vector,
    )  # fmt: skip
    item = gallery.item(number)
    assert (item.label, item.status, item.position, item.box) == ("cell", "kept", (3, 4), ((1, 5), (2, 8)))
    assert (item.image, item.name, item.source, item.select) == ("f00", "slide <1>", "sample:nuclei-2d", {"T": 2})
    assert (item.prototype, item.activity, item.group, item.note) == (7, 0.25, "slide", "ä 'x'")
    np.testing.assert_array_equal(gallery.crop(number), colour)
    np.testing.assert_array_equal(gallery.vector(number), vector)
    other = gallery.add(label="cell", crop=CROP, position=(3, 4), box=((1, 5), (2, 8)))
    np.testing.assert_array_equal(gallery.crop(other), CROP)
    assert gallery.vector(other) is None


EDITS = {
    "drop": lambda g: g.drop([1, 3]),
    "keep": lambda g: g.keep([5]),
    "merge": lambda g: g.merge([1, 2], 3),
    "relabel": lambda g: g.relabel([4], "border"),
    "note": lambda g: g.set_note(2, "odd"),
    "add": lambda g: g.add_many([new(), new()]),
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_is_undone_done_again_and_logged(five: Gallery, name: str) -> None:
    five.drop([5])
    before, length = five.items(), len(five.history())
    EDITS[name](five)
    after = five.items()
    assert after != before
    what = five.undoable
    assert five.undo() == what == five.redoable
    assert five.items() == before
    assert five.redo() == what
    assert five.items() == after
    latest = five.history()[: len(five.history()) - length]
    assert [(e.kind, e.person) for e in latest] == [("redo", "Ada"), ("undo", "Ada"), ("edit", "Ada")]
    assert what in latest[0].what
    assert latest[0].time >= latest[2].time > "2020"


def test_undo_goes_back_to_the_beginning_and_all_the_way_forward(five: Gallery) -> None:
    states = [told(five)]
    five.drop([5])
    for edit in EDITS.values():
        edit(five)
        states.append(told(five))
        if five.item(3).status == "dropped":
            five.undo()
    while five.undo():
        pass
    assert told(five) == []
    assert (five.undoable, five.undo()) == ("", None)
    while five.redo():
        pass
    assert told(five) == states[-1] != states[0]
    assert (five.redoable, five.redo()) == ("", None)


def test_what_was_undone_is_gone_after_another_edit_but_stays_in_the_log(five: Gallery) -> None:
    five.drop([1])
    five.undo()
    five.relabel([2], "border")
    assert five.redo() is None
    assert [e.what for e in five.history(3)] == [
        "relabelled item 2 as border",
        "undid: dropped item 1",
        "dropped item 1",
    ]


def test_an_edit_that_changes_nothing_is_no_edit(five: Gallery) -> None:
    before = five.token()
    assert five.keep([1, 2]) == 0
    assert five.relabel([1], "cell") == 0
    assert five.token() == before


def test_the_log_tells_what_changed_and_not_what_was_asked(five: Gallery) -> None:
    five.drop([2])
    assert five.drop([1, 2, 3]) == 2
    assert five.history(1)[0].what == "dropped items 1 and 3"


def test_parts_follow_what_they_are_part_of(five: Gallery) -> None:
    five.merge([1], 2)
    five.merge([2], 3)
    assert [i.merged_into for i in five.items()] == [3, 3, None, None, None]
    five.relabel([3], "border")
    assert [i.label for i in five.items(status="merged")] == ["border", "border"]
    five.keep([1])
    assert (five.item(1).status, five.item(1).merged_into) == ("kept", None)


@pytest.mark.parametrize(
    ("edit", "error", "word"),
    [
        (lambda g: g.drop([1, 99]), UnknownName, "item 99"),
        (lambda g: g.item(99), UnknownName, "item 99"),
        (lambda g: g.crop(99), UnknownName, "item 99"),
        (lambda g: g.vector(99), UnknownName, "item 99"),
        (lambda g: g.set_activity({1: 1.0, 99: 2.0}), UnknownName, "item 99"),
        (lambda g: g.relabel([1], "cel"), UnknownName, "Did you mean cell"),
        (lambda g: g.merge([1], 1), BadParameter, "is not one of them"),
        (lambda g: g.merge([], 1), BadParameter, "Nothing"),
        (lambda g: g.merge([1], 5), BadParameter, "which is dropped"),
        (lambda g: g.merge([1], 4), BadParameter, "border"),
        (lambda g: g.relabel([3], "border"), BadParameter, "part of item 2"),
        (lambda g: g.items(order="size"), UnknownName, "order"),
        (lambda g: g.add_many([new(), new("cel")]), UnknownName, "Did you mean cell"),
        (lambda g: g.add_many([new(), NewItem("cell", CROP, (1,), ((1, 5),))]), BadParameter, "YX"),
        (lambda g: g.add_many([NewItem("cell", CROP / 2, (1, 1), ((1, 5), (1, 5)))]), BadParameter, "float64"),
    ],
)
def test_what_cannot_be_done_says_so_and_changes_nothing(five: Gallery, edit, error, word) -> None:
    five.relabel([4], "border")
    five.drop([5])
    five.merge([3], 2)
    before, token = five.items(), five.token()
    with pytest.raises(error, match=word):
        edit(five)
    assert (five.items(), five.token(), len(five)) == (before, token, 5)


def test_items_are_filtered_sorted_and_paged(five: Gallery) -> None:
    five.relabel([2, 4], "border")
    five.drop([5])
    five.add_many([new("border")])

    def ids(**asked: object) -> list[int]:
        assert five.count(**{k: v for k, v in asked.items() if k in ("label", "image", "status", "group")}) == len(
            five.items(**asked | {"limit": None, "offset": 0})
        )
        return [i.id for i in five.items(**asked)]

    assert ids(label="border") == [2, 4, 6]
    assert ids(image="image 1") == [2, 4]
    assert ids(group="slide 0", status="kept") == [1, 3]
    assert ids(order="label") == [2, 4, 6, 1, 3, 5]
    assert ids(order="activity") == [5, 4, 3, 2, 1, 6]
    assert ids(order="activity", descending=True) == [1, 2, 3, 4, 5, 6]
    assert ids(order="age", descending=True) == [6, 5, 4, 3, 2, 1]
    assert ids(limit=2, offset=3) == [4, 5]


def test_activity_is_measured_not_edited(five: Gallery) -> None:
    five.drop([1])
    token = five.token()
    five.set_activity({1: 0.5, 2: 0.25})
    assert [five.item(n).activity for n in (1, 2)] == [0.5, 0.25]
    assert five.token() != token
    assert five.undoable == "dropped item 1"
    assert five.history(1)[0].kind == "measure"


def test_the_log_refuses_to_be_rewritten(five: Gallery) -> None:
    with sqlite3.connect(five.folder / database.FILE) as db:
        for sql in ("UPDATE log SET person = 'nobody'", "DELETE FROM log"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                db.execute(sql)


def test_two_viewers_see_and_undo_each_others_edits(five: Gallery) -> None:
    with Gallery.open(five.folder, person="Bo") as other:
        here, there = five.token(), other.token()
        other.drop([2])
        assert five.token() != here
        assert other.token() != there
        assert five.item(2).status == "dropped"
        assert five.undo() == "dropped item 2"
        assert other.item(2).status == "kept"
        assert [e.person for e in other.history(2)] == ["Ada", "Bo"]
        same = five.token()
        assert five.token() == same


def test_threads_edit_at_once_and_nothing_is_lost(five: Gallery) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [five.add_many([new(note=str(n))]) for _ in range(5)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(five) == 25
    assert len(five.history()) == 21


WORK = """
import sys, time
import numpy as np
from seglens.workspace.gallery import Gallery, NewItem, journal
stop, folder = sys.argv[1:]
gallery = Gallery.open(folder)

def wait(*_):
    print("ready", flush=True)
    time.sleep(60)

def items():
    for n in range(100):
        if n == 99:
            wait()
        yield NewItem("cell", np.zeros((4, 4), np.uint8), (3, 4), ((1, 5), (2, 8)))

if stop == "while it adds":
    gallery.add_many(items())
elif stop == "after it wrote all":
    write = journal._set
    journal._set = lambda *these: (write(*these), wait())
    gallery.merge([1, 2, 3], 4)
else:
    gallery.merge([1, 2, 3], 4)
    wait()
"""


@pytest.mark.parametrize("stop", ["while it adds", "after it wrote all", "after the edit"])
def test_a_kill_in_the_middle_of_an_edit_leaves_all_or_nothing(five: Gallery, stop: str) -> None:
    before, length = told(five), len(five.history())
    five.close()
    child = subprocess.Popen([sys.executable, "-c", WORK, stop, str(five.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    finally:
        child.kill()
        child.wait()
    with Gallery.open(five.folder) as again:
        if stop == "after the edit":
            assert again.undo() == "merged items 1, 2 and 3 into item 4"
            length += 2
        assert (told(again), len(again.history())) == (before, length)
        assert again.merge([1], 2) == 1
        assert again.add(label="cell", crop=CROP, position=(3, 4), box=((1, 5), (2, 8)))
        assert again.undo()
        assert again.undo()
        assert told(again) == before


def test_kills_at_any_moment_leave_whole_edits(five: Gallery) -> None:
    """An edit drops or keeps all five items: no other state may ever be seen."""
    script = (
        "import sys\nfrom seglens.workspace.gallery import Gallery\n"
        "g = Gallery.open(sys.argv[1])\nprint('on', flush=True)\n"
        "while True:\n    g.drop(range(1, 6))\n    g.keep(range(1, 6))\n"
    )
    edits = len(five.history())
    for kill in range(5):
        child = subprocess.Popen([sys.executable, "-c", script, str(five.folder)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.01 * kill)
        child.kill()
        child.wait()
        with Gallery.open(five.folder) as again:
            assert len({item.status for item in again.items()}) == 1
            statuses = ["kept" if e.what.startswith("kept") else "dropped" for e in again.history(1)]
            assert again.item(1).status in statuses or len(again.history()) == edits


def test_ten_thousand_items_are_listed_at_once(gallery: Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["background", "cell", "border"]
    gallery.add_many(new(names[n % 3], image=str(n % 50), activity=n * 7 % 1000 / 10) for n in range(10_000))
    asked = [
        {}, {"label": "cell"}, {"image": "7", "status": "kept"}, {"order": "activity", "descending": True},
        {"order": "label", "offset": 9000}, {"order": "age", "status": "kept", "descending": True}, {"order": "image"},
    ]  # fmt: skip
    times = []
    for query in asked:
        start = time.perf_counter()
        assert len(gallery.items(limit=60, **query)) == 60
        times.append(time.perf_counter() - start)
    tracemalloc.start()
    gallery.items(order="activity", limit=60)
    gallery.crop(5000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with capsys.disabled():
        sys.stdout.write(
            f"\n10,000 items, a page of 60: {1e3 * np.median(times):.1f} ms, at most {1e3 * max(times):.1f} ms\n"
        )
    assert np.median(times) < 0.05
    assert peak < 2**20


def test_an_older_gallery_is_brought_forward_and_a_copy_is_kept(five: Gallery, monkeypatch) -> None:
    before = five.items()
    five.close()
    monkeypatch.setattr(database, "VERSION", 2)
    monkeypatch.setattr(database, "MIGRATIONS", {1: "CREATE TABLE extra (x);\nINSERT INTO extra VALUES (5);"})
    with Gallery.open(five.folder) as newer:
        assert newer.items() == before
        assert newer._db.one("SELECT x FROM extra") == 5
        assert newer.drop([1]) == 1
    with sqlite3.connect(five.folder / "gallery-v1.sqlite") as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("SELECT count(*) FROM item WHERE status = 'kept'").fetchone() == (5,)
    Gallery.open(five.folder).close()
    monkeypatch.setattr(database, "VERSION", 1)
    with pytest.raises(ImageMismatch, match="version 2"):
        Gallery.open(five.folder)


def test_a_migration_that_fails_changes_nothing(five: Gallery, monkeypatch) -> None:
    five.close()
    monkeypatch.setattr(database, "VERSION", 2)
    monkeypatch.setattr(database, "MIGRATIONS", {1: "DELETE FROM crop;\nSELECT nothing FROM nowhere;"})
    with pytest.raises(sqlite3.OperationalError):
        Gallery.open(five.folder)
    monkeypatch.undo()
    with Gallery.open(five.folder) as same:
        assert same.crop(1).shape == CROP.shape


def _nothing(folder: Path) -> None:
    folder.mkdir()


def _text(folder: Path) -> None:
    folder.mkdir()
    (folder / database.FILE).write_text("no database, and long enough to be taken for one " * 40)


def _other(folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / database.FILE) as db:
        db.execute("CREATE TABLE item (id)")


def _torn(folder: Path) -> None:
    with Gallery.create(folder, classes=["cell"]) as gallery:
        gallery.add_many(new() for _ in range(50))
    file = folder / database.FILE
    data = bytearray(file.read_bytes())
    data[100:3000] = bytes(2900)
    file.write_bytes(data)


NO_GALLERY = [(_nothing, "no gallery"), (_text, "damaged"), (_other, "not the file"), (_torn, "damaged")]


@pytest.mark.parametrize(("make", "word"), NO_GALLERY)
def test_what_is_no_gallery_is_refused(tmp_path: Path, make, word: str) -> None:
    make(tmp_path / "x.gallery")
    with pytest.raises(ImageMismatch, match=word):
        Gallery.open(tmp_path / "x.gallery").items()


def test_a_gallery_needs_a_free_folder_and_classes(five: Gallery, tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="not empty"):
        Gallery.create(five.folder, classes=["cell"])
    with pytest.raises(BadParameter, match="classes"):
        Gallery.create(tmp_path / "b", classes=[])


def test_a_program_that_writes_too_long_is_named(five: Gallery, monkeypatch) -> None:
    monkeypatch.setattr(database, "WAIT", 0.05)
    with Gallery.open(five.folder) as other, five._db.writing():
        assert len(other.items()) == 5
        with pytest.raises(BadParameter, match="locked"):
            other.drop([1])


def test_a_closed_or_removed_gallery_says_so(five: Gallery) -> None:
    with Gallery.open(five.folder) as other:
        five.close()
        five.close()
        with pytest.raises(BadParameter, match="was closed"):
            five.items()
        assert len(other) == 5
