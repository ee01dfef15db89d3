"""The command line: names, options, files that it writes, errors, and how light it is."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import seglens
from bad_input import good, net, squares
from seglens import session
from seglens.app.cli import COMMANDS, main
from seglens.app.commands._options import _Bar
from seglens.core.catalogue import METHODS
from seglens.core.errors import UnknownName
from seglens.core.explanation import Record
from seglens.core.files import open_image
from seglens.core.method import Need
from seglens.core.rerun import RESERVED, as_cli, flag
from seglens.core.run import Run
from seglens.core.saving import load_explanation

# What a plain network of convolutions, an image and one model do not have.
UNMET = {Need.ATTENTION, Need.SECOND_MODEL, Need.DROPOUT, Need.PROTOTYPES, Need.BANK, Need.ANNOTATORS}


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's remembered trust is read or changed."""
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path_factory.mktemp("home")))


def call(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(w) for w in words])


def ask(folder: Path, *words: object, method: str = "occlusion", image: str | None = None) -> Result:
    """Explain the two squares."""
    quick = ["--window", 8] if method == "occlusion" else []
    image = image or good(folder)
    return call(
        "explain", method, image, "--model", net(folder), "--trust", "--device", "cpu", *quick, "--out", folder / "out",
        *words,
    )  # fmt: skip


def record(folder: Path) -> Record:
    """The record that a call left."""
    return Record.from_dict(json.loads((folder / "out" / "record.json").read_text()))


@pytest.mark.parametrize(
    "code",
    [
        "import seglens",
        "import seglens; list(seglens.METHODS)",
        "from seglens.app.cli import main; main(['--help'], standalone_mode=False)",
        "from seglens.app.cli import main; main(['explain', '--help'], standalone_mode=False)",
        "from seglens.app.cli import main; main(['segment', '--help'], standalone_mode=False)",
        "from seglens.app.cli import main; main(['models'], standalone_mode=False)",
    ],
)
def test_it_is_light(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    check = (
        "; import sys; heavy = {'torch', 'napari', 'matplotlib', 'skimage'} & set(sys.modules); assert not heavy, heavy"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code + check], check=True, timeout=60, stdout=subprocess.DEVNULL)
    with capsys.disabled():
        sys.stdout.write(f"\n{time.perf_counter() - start:.2f} s  {code}")


def test_every_command_has_help() -> None:
    listed = call("--help").output
    for name in COMMANDS:
        assert name in listed
        if name != "explain":
            assert call(name, "--help").exit_code == 0
    assert "seglens " in call("--version").output


@pytest.mark.parametrize("name", list(METHODS))
def test_every_parameter_is_an_option(name: str) -> None:
    text = call("explain", name, "--help").output
    for parameter in METHODS[name].parameters():
        assert f"{flag(parameter.name)} " in text
    for common in ("--class", "--region", "--point", "--object", "--box", "--border", "--seed", "--device", "--trust"):
        assert common in text


def test_no_parameter_takes_the_name_of_another_option() -> None:
    context = click.Context(main)
    commands = [main.get_command(context, "explain").get_command(context, name) for name in METHODS]  # type: ignore[union-attr]
    own = {str(p.name) for p in commands[0].params if isinstance(p, click.Option) and "param_" not in str(p.name)}
    assert own <= RESERVED
    for command in commands:
        flags = [option for p in command.params for option in p.opts]
        assert len(flags) == len(set(flags)), command.name


def test_a_parameter_with_the_name_of_an_option_is_repeated_rightly(tmp_path: Path) -> None:
    result = ask(tmp_path, "--class", "cell", "--method-weights", "absolute", method="seg-grad-cam")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    assert told.parameters["weights"] == "absolute"
    assert "--method-weights absolute" in as_cli(told)
    again = call(*shlex.split(as_cli(told, out=str(tmp_path / "again")))[1:])
    assert again.exit_code == 0, again.output


def test_limits_defaults_and_units_stand_in_the_help() -> None:
    text = " ".join(call("explain", "occlusion", "--help").output.split())
    assert "a whole number from 1 to 4096, px; default: 1/16 of the image" in text
    assert "one of whole, context, object; default: whole" in text


def test_lists_for_people_and_for_programs() -> None:
    told = json.loads(call("methods", "--json").output)
    assert {card["name"] for card in told} == set(METHODS)
    keys = {"name", "title", "family", "scope", "timing", "range", "needs", "fidelity", "cite", "survey", "parameters"}
    assert all(keys <= card.keys() for card in told)
    only = json.loads(call("methods", "--family", "gradient", "--json").output)
    assert {card["family"] for card in only} == {"gradient"}
    assert "occlusion" in call("methods").output
    assert isinstance(json.loads(call("models", "--json").output), list)
    wrong = call("methods", "--family", "gradeint")
    assert wrong.exit_code == 2
    assert "Did you mean gradient?" in wrong.stderr


def test_segment_writes_images_with_their_axes(tmp_path: Path) -> None:
    result = call("segment", good(tmp_path), "--model", net(tmp_path), "--trust", "--out", tmp_path / "out",
                  "--probabilities", "--tile", 16, "--halo", 4)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "cell" in result.output
    names = {"labels.tif", "objects.tif", "entropy.tif", "probabilities.tif"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    labels = open_image(tmp_path / "out" / "labels.tif").read("YX")
    assert labels.shape == squares().shape
    assert labels[8, 9] == 1
    assert open_image(tmp_path / "out" / "objects.tif").read("YX").max() == 2
    assert open_image(tmp_path / "out" / "probabilities.tif").size("C") == 2


def test_one_bad_image_does_not_stop_the_rest(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    np.save(images / "a.npy", squares())
    (images / "b.png").write_bytes(b"not a picture")
    np.save(images / "c.npy", squares()[::-1])
    result = call("segment", images, "--model", net(tmp_path), "--trust", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "1 of 3 images failed" in result.stderr
    assert "b.png" in result.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a", "c"}
    assert "Traceback" not in result.output


def test_all_bad_images_leave_nothing(tmp_path: Path) -> None:
    result = call("segment", "one.tif", "two.tif", "--model", net(tmp_path), "--trust", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "2 of 2 images failed" in result.stderr
    assert not (tmp_path / "out").exists()


def test_big_images_go_through_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seglens.app.commands.segment.BIG", 100)
    result = call("segment", good(tmp_path), "--model", net(tmp_path), "--trust", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"labels.tif", "entropy.tif"}
    assert not [p for p in tmp_path.iterdir() if "parts" in p.name]


def test_a_stack_through_a_flat_model(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.stack([squares()] * 3))
    out = tmp_path / "out"
    result = call("segment", tmp_path / "stack.npy", "--model", net(tmp_path), "--trust", "--out", out)
    assert result.exit_code == 0, result.output
    assert open_image(out / "labels.tif").axes == "ZYX"


@pytest.mark.parametrize("method", list(METHODS))
def test_explain_writes_everything(tmp_path: Path, method: str) -> None:
    result = ask(tmp_path, "--class", "cell", method=method)
    fits = 2 in METHODS[method].dims and not METHODS[method].needs & UNMET
    if method in ("neural-backed-tree", "descriptor-shapley") or not fits:
        # two classes make no tree, two objects no comparison, convolutions no attention, a network without dropout no
        # samples, an image no volume, one model no pair: said in a sentence
        assert result.exit_code == 2
        assert result.output.startswith("Error: ")
        assert "Traceback" not in result.output
        return
    assert result.exit_code == 0, result.output
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"overview.png", "record.json", "layers.json", "text.txt"} <= files
    assert any(name.endswith(".ome.tif") for name in files)
    assert "cell" in result.output
    assert str(tmp_path / "out") in result.output
    assert record(tmp_path).method == method


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--point", "8,9"], "point"),
        (["--object", "2"], "object"),
        (["--object-at", "16,20"], "object"),
        (["--box", "2,2:14,16"], "box"),
        (["--box", "2,2:14,16", "--whole-box"], "box"),
        (["--border", "2"], "border"),
        (["--object", "1", "--border", "1"], "border"),
        (["--class", "0"], "predicted"),
        (["--value", "margin", "--reduction", "sum"], "predicted"),
        (["--region", "MASK"], "painted"),
        (["--crop", "Y=2:22,X=3:31", "--seed", "7"], "predicted"),
    ],
)
def test_targets_and_their_record_as_a_command(tmp_path: Path, words: list[str], kind: str) -> None:
    mask = tmp_path / "mask.npy"
    np.save(mask, (squares() > 100).astype(np.uint8))
    result = ask(tmp_path, *[str(mask) if w == "MASK" else w for w in words])
    assert result.exit_code == 0, result.output
    made = record(tmp_path)
    assert made.target["region"]["kind"] == kind
    # what the record tells as a command gives the same answer
    again = call(*shlex.split(as_cli(made, out=str(tmp_path / "again")))[1:])
    assert again.exit_code == 0, again.output
    one, two = (load_explanation(tmp_path / name).map.data for name in ("out", "again"))
    assert np.array_equal(one, two)


def test_views_of_a_larger_file(tmp_path: Path) -> None:
    series = np.zeros((2, 3, *squares().shape), np.uint8)
    series[1, 2] = squares()
    np.save(tmp_path / "series.npy", series)
    image = str(tmp_path / "series.npy")
    result = ask(tmp_path, "--axes", "TCYX", "--select", "T=1", "--channels", "2", image=image)
    assert result.exit_code == 0, result.output
    made = record(tmp_path)
    assert (made.image["select"], made.image["channels"]) == ({"T": 1}, [2])
    again = call(*shlex.split(as_cli(made, out=str(tmp_path / "again")))[1:])
    assert again.exit_code == 0, again.output


def test_volumes(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 50, (6, 16, 16)).astype(np.uint8)
    stack[2:5, 4:10, 4:10] = 220
    np.save(tmp_path / "stack.npy", stack)
    model = net(tmp_path, axes="ZYX")
    result = call("explain", "vanilla-gradient", tmp_path / "stack.npy", "--model", model, "--trust",
                  "--point", "3,6,6", "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert open_image(tmp_path / "out" / "gradient.ome.tif").axes == "ZYX"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--point", "1,2", "--object", "1"], "given together"),
        (["--point", "1"], "2 axes"),
        (["--point", "a,b"], "not a whole number"),
        (["--select", "Q=1"], "cannot be understood"),
        (["--select", "T=1"], "no T axis"),
        (["--channels", "0,7"], "channels"),
        (["--crop", "Y=3"], "not a whole number"),
        (["--axes", "ZYX"], "do not fit"),
        (["--border", "0"], "--border 0"),
        (["--device", "warp"], "warp"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, words: list[str], what: str) -> None:
    result = ask(tmp_path, *words)
    assert result.exit_code == 2, result.output
    assert what in result.stderr
    assert len(result.stderr.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_full_folders_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    result = ask(tmp_path)
    assert result.exit_code == 2
    assert "out-2" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_unknown_methods_and_commands() -> None:
    wrong = call("explain", "oclusion", "a.tif", "--model", "m", "--out", "o")
    assert wrong.exit_code == 2
    assert "Did you mean occlusion?" in wrong.stderr
    assert call("segmnt").exit_code == 2
    assert call("explain", "occlusion", "a.tif").exit_code == 2


@pytest.mark.parametrize("place", [0, -1])
def test_debug_shows_the_traceback_wherever_it_stands(place: int) -> None:
    words = ["methods", "--family", "x"]
    words.insert(0 if place == 0 else len(words), "--debug")
    assert isinstance(call(*words).exception, UnknownName)


def test_a_real_process_has_no_traceback(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "seglens", "explain", "occlusion", "none.tif", "--model", "m", "--out", "o"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: There is no file none.tif.\n")
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "segment", interrupted)
    result = ask(tmp_path)
    assert result.exit_code == 130
    assert "Stopped" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def train(recipe: str, data: Path | None, out: Path, *, run: Run, **more: object) -> Path:
        asked.update(recipe=recipe, data=data, out=out, seed=run.seed, precision=run.precision, **more)
        return out

    monkeypatch.setattr("seglens.training.train", train)
    result = call("train", "nuclei-fluorescence", "data", "--out", "model", "--epochs", 3, "--seed", 5)
    assert result.exit_code == 0, result.output
    wanted = {"recipe": "nuclei-fluorescence", "data": Path("data"), "out": Path("model"), "epochs": 3, "seed": 5}
    usual = {"network": None, "patience": None, "licence": None, "resume": False, "precision": "full"}
    assert asked == {**wanted, **usual}
    more = ("--network", "segmenter", "--resume", "--patience", 4, "--precision", "bf16", "--licence", "MIT")
    call("train", "nuclei-fluorescence", "data", "--out", "model", *more)
    changed = {"network": "segmenter", "resume": True, "patience": 4, "precision": "bf16", "licence": "MIT"}
    assert {name: asked[name] for name in changed} == changed
    monkeypatch.undo()
    listed = call("train", "--list")
    assert listed.exit_code == 0
    assert "nuclei-histology\n    Blue to purple nuclei" in listed.output
    assert "Did you mean" in call("train", "nuclei-fluorescense", "data", "--out", tmp_path / "m").stderr


def test_ctrl_c_in_a_training_tells_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seglens.training.train", interrupted)
    words = ("train", "shortcut-synthetic", "--out", tmp_path / "out")
    assert "--resume" not in call(*words).stderr
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    result = call(*words)
    assert (result.exit_code, "--resume" in result.stderr) == (130, True)


def test_the_bar_follows_the_work() -> None:
    bar = _Bar()
    for text, total in (("tiles", 3), ("windows", 5)):
        for done in range(total + 1):
            bar.move(done, total, text)
        assert bar._bar.n == total
    bar.close()
    bar.close()


def test_fills_are_compared_and_the_record_says_so(tmp_path: Path) -> None:
    result = ask(tmp_path, "--class", "cell", "--compare-fills", "--window", "8", "--stride", "8", method="occlusion")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    assert told.asked == {"compare-fills": True}
    assert "--compare-fills" in seglens.as_cli(told)
    assert "seglens.compare_fills('occlusion'" in seglens.as_python(told)


def test_a_preview_in_tiles_is_recorded(tmp_path: Path) -> None:
    words = ["--class", "cell", "--tile", "16", "--precision", "bf16", "--window", "8", "--stride", "8"]
    result = ask(tmp_path, *words, method="occlusion")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    assert told.asked == {"tile": 16, "precision": "bf16"}
    assert told.engine["precision"]["kind"] == "bf16"
    assert "--precision bf16 --tile 16" in seglens.as_cli(told)


def test_labels_of_a_person_are_units(tmp_path: Path) -> None:
    drawn = np.zeros((24, 32), np.int32)
    drawn[2:10, 2:14], drawn[12:22, 16:28] = 1, 2
    file = tmp_path / "drawn.npy"
    np.save(file, drawn)
    words = ["--class", "cell", "--units", "labels", "--annotation", str(file)]
    result = ask(tmp_path, *words, method="kernel-shap")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    assert told.asked == {"annotation": str(file)}
    (tmp_path / "b").mkdir()
    wrong = ask(tmp_path / "b", "--class", "cell", "--units", "labels", method="kernel-shap")
    assert wrong.exit_code == 2
    assert "labels layer" in wrong.output


def test_each_object_is_answered_in_one_run(tmp_path: Path) -> None:
    result = ask(tmp_path, "--class", "cell", "--each-object", "--window", "8", "--stride", "8", method="occlusion")
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "out" / "objects.csv").read_text().splitlines()
    folders = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert len(folders) == len(rows) - 2 == 2
    alone = ask(tmp_path, "--object", "2", "--window", "8", "--stride", "8", "--out", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    together = load_explanation(tmp_path / "out" / folders[1])
    single = load_explanation(tmp_path / "alone")
    np.testing.assert_allclose(together.map.data, single.map.data, atol=1e-5)
    assert together.text == single.text


def test_each_object_hears_the_other_options(tmp_path: Path) -> None:
    common = ["--class", "cell", "--each-object", "--window", "8", "--stride", "8"]
    result = ask(tmp_path, *common, "--tile", "16", method="occlusion")
    assert result.exit_code == 0, result.output
    told = load_explanation(tmp_path / "out" / "object-0001").record
    assert told is not None
    assert told.asked == {"tile": 16}
    for more in (["--compare-fills"], ["--object", "1"]):
        (tmp_path / more[0]).mkdir()
        refused = ask(tmp_path / more[0], *common, *more, method="occlusion")
        assert refused.exit_code == 2
        assert "given together" in refused.output


def test_each_object_has_its_own_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of = METHODS["occlusion"].run

    def noting(self: Any, case: Any) -> Any:
        case.run.note(f"It has {case.target.pixels} pixels.")
        return run_of(self, case)

    monkeypatch.setattr(METHODS["occlusion"], "run", noting)
    result = ask(tmp_path, "--class", "cell", "--each-object", "--stride", "8")
    assert result.exit_code == 0, result.output
    sizes = [row.split(",")[2] for row in (tmp_path / "out" / "objects.csv").read_text().splitlines()[2:]]
    for number, size in enumerate(sizes, 1):
        assert f"Note: object {number}: It has {size} pixels." in result.stderr


def test_a_comparison_of_fills_that_all_refuse_is_one_sentence(tmp_path: Path) -> None:
    words = ["--class", "cell", "--compare-fills", "--solver", "least-squares", "--samples", "8"]
    result = ask(tmp_path, *words, method="kernel-shap")
    assert result.exit_code == 2
    assert result.output.count("Least squares cannot tell") == 1 + result.output.count("Left out")
    assert "Traceback" not in result.output


def test_a_preview_that_nothing_heard_says_so(tmp_path: Path) -> None:
    result = ask(tmp_path, "--class", "cell", "--precision", "bf16", method="vanilla-gradient")
    assert result.exit_code == 0, result.output
    assert any("full precision" in note for note in record(tmp_path).notes)


def other(folder: Path, name: str = "other.npy") -> str:
    """A reference image: the squares elsewhere."""
    np.save(folder / name, squares()[::-1].copy())
    return str(folder / name)


NOISE = ["--class", "cell", "--steps", 3, "--width", 2, "--batch", 1]


def test_references_reach_a_method_and_its_record(tmp_path: Path) -> None:
    more = [word for name in ("a.npy", "b.npy") for word in ("--reference", other(tmp_path, name))]
    result = ask(tmp_path, *NOISE, *more, method="u-noise")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    assert [one["name"] for one in told.asked["reference"]] == ["a", "b"]
    assert all(one["sha256"] != told.image["sha256"] for one in told.asked["reference"])
    again = call(*shlex.split(as_cli(told, out=str(tmp_path / "again")))[1:], "--trust")
    assert again.exit_code == 0, again.output
    same, alone = (load_explanation(tmp_path / name).map.data for name in ("out", "again"))
    assert np.array_equal(same, alone)
    (tmp_path / "alone").mkdir()
    assert ask(tmp_path / "alone", *NOISE, method="u-noise").exit_code == 0
    assert not np.array_equal(same, load_explanation(tmp_path / "alone" / "out").map.data)


def test_a_record_with_references_is_python_that_runs(tmp_path: Path) -> None:
    series = np.stack([squares(), squares()[::-1]])
    np.save(tmp_path / "series.npy", series)
    words = ["--axes", "TYX", "--select", "T=0", "--reference", str(tmp_path / "series.npy")]
    result = ask(tmp_path, *NOISE, *words, "--crop", "Y=0:24,X=2:32", method="u-noise", image=tmp_path / "series.npy")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    # the view of the image holds for its references, but for the crop
    assert told.asked["reference"][0]["select"] == {"T": 0}
    assert told.asked["reference"][0]["crop"] == {}
    assert as_cli(told).count(str(tmp_path / "series.npy")) == 2
    code = seglens.as_python(told).replace("load_model(", "load_model(trust=Trust.always(), source=")
    seen: dict[str, object] = {}
    exec(f"from seglens.models.trust import Trust\n{code}", seen)
    assert np.array_equal(seen["explanation"].map.data, load_explanation(tmp_path / "out").map.data)  # type: ignore[attr-defined]


def test_a_reference_that_a_command_cannot_name_is_a_gap(tmp_path: Path) -> None:
    assert ask(tmp_path, *NOISE, "--reference", other(tmp_path), method="u-noise").exit_code == 0
    told = record(tmp_path)
    told.asked["reference"][0]["crop"] = {"Y": "0:8"}
    assert "--reference IMAGE" in as_cli(told)
    assert ".crop(Y=slice(0, 8))" in seglens.as_python(told)


@pytest.mark.parametrize(
    ("method", "words", "what", "fix"),
    [
        ("u-noise", ["--reference", "none.npy"], "There is no file none.npy", "Check the path"),
        ("occlusion", ["--reference", "OTHER"], "Occlusion compares with no other images, and 1 was given",
         "Leave out --reference"),
        ("u-noise", ["--reference", "WIDE"], "wide has axes ZYX", "--select"),
    ],
)  # fmt: skip
def test_references_that_cannot_be_used(tmp_path: Path, method: str, words: list[str], what: str, fix: str) -> None:
    np.save(tmp_path / "wide.npy", np.stack([squares()] * 12))
    files = {"OTHER": other(tmp_path), "WIDE": str(tmp_path / "wide.npy")}
    result = ask(tmp_path, "--class", "cell", *(files.get(w, w) for w in words), method=method)
    assert result.exit_code == 2, result.output
    assert what in result.stderr
    assert fix in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_method_that_compares_asks_for_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["occlusion"], "needs", frozenset({Need.REFERENCE}))
    refused = ask(tmp_path, "--class", "cell")
    assert refused.exit_code == 2
    assert "none were given" in refused.stderr
    assert "--reference FILE" in refused.stderr
    for more in ([], ["--each-object"], ["--compare-fills", "--stride", "8"]):
        (tmp_path / str(len(more))).mkdir()
        given = ask(tmp_path / str(len(more)), "--class", "cell", "--reference", other(tmp_path), *more)
        assert given.exit_code == 0, given.output


def test_the_list_of_methods_tells_what_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS["occlusion"], "needs", frozenset({Need.REFERENCE}))
    lines = {line.split()[0]: line for line in call("methods").output.splitlines() if line.startswith("  ")}
    assert lines["u-noise"].endswith("[takes --reference and --annotation]")
    assert lines["occlusion"].endswith("[needs --reference]")
    assert lines["rise"].endswith(".")
    told = {card["name"]: card for card in json.loads(call("methods", "--json").output)}
    assert told["u-noise"]["takes"] == ["annotation", "reference"]
    assert told["rise"]["takes"] == []


def test_one_method_at_every_depth(tmp_path: Path) -> None:
    result = ask(tmp_path, "--class", "cell", "--all-layers", method="seg-grad-cam")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    rows = (out / "layers.csv").read_text().splitlines()
    folders = sorted(p.name for p in out.iterdir() if p.is_dir())
    assert folders == ["01-features", "02-head"]
    assert rows[1].startswith("layer,channels,stride,map,largest,answer")
    assert rows[2].startswith("features,2,1,24×32,1.0,")
    assert (out / "overview.png").stat().st_size > 20_000
    told = record(tmp_path)
    assert told.asked == {"all-layers": True}
    assert "--all-layers" in as_cli(told)
    one = load_explanation(out / "01-features")
    assert one.record is not None
    assert one.record.parameters["layer"] == "features"
    again = call(*shlex.split(as_cli(one.record, out=str(tmp_path / "again")))[1:], "--trust")
    assert again.exit_code == 0, again.output
    assert np.array_equal(load_explanation(tmp_path / "again").map.data, one.map.data)
    (tmp_path / "b").mkdir()
    assert ask(tmp_path / "b", "--class", "cell", "--all-depths", method="seg-grad-cam").exit_code == 0
    assert "at 1 layer." in ask(tmp_path / "b", "--all-depths", "--out", tmp_path / "c", method="seg-grad-cam").output


@pytest.mark.parametrize(
    ("method", "words", "what"),
    [
        ("occlusion", ["--all-depths"], "Occlusion looks at no layer"),
        ("seg-grad-cam", ["--all-depths", "--all-layers"], "--all-depths and --all-layers were given together"),
        ("seg-grad-cam", ["--all-depths", "--tile", "16"], "--all-depths was given with --tile"),
        ("seg-grad-cam", ["--all-depths", "--layer", "features"], "--layer features was given with --all-depths"),
        ("seg-grad-cam", ["--all-layers", "--layer", "features"], "--layer features was given with --all-layers"),
    ],
)
def test_depths_that_cannot_be_asked(tmp_path: Path, method: str, words: list[str], what: str) -> None:
    result = ask(tmp_path, "--class", "cell", *words, method=method)
    assert result.exit_code == 2, result.output
    assert what in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_second_model_is_compared_with_the_first(tmp_path: Path) -> None:
    other = str(tmp_path / "net.py") + ":build"
    result = ask(tmp_path, "--class", "cell", "--second-model", other, method="cross-model-cam")
    assert result.exit_code == 0, result.output
    told = record(tmp_path)
    assert told.asked["second-model"] == other
    again = call(*shlex.split(as_cli(told, out=str(tmp_path / "again")))[1:], "--trust")
    assert again.exit_code == 0, again.output
    assert np.array_equal(*(load_explanation(tmp_path / name).map.data for name in ("out", "again")))


@pytest.mark.parametrize(
    ("method", "words", "what"),
    [
        ("cross-model-cam", [], "compares two models, and one was given"),
        ("vanilla-gradient", ["--second-model", "nuclei-histology"], "asks one model, and two were given"),
        ("cross-model-cam", ["--second-model", "nuclei-histology", "--each-object"], "--each-object was given with"),
    ],
)
def test_a_second_model_that_cannot_be_used(tmp_path: Path, method: str, words: list[str], what: str) -> None:
    result = ask(tmp_path, "--class", "cell", *words, method=method)
    assert result.exit_code == 2, result.output
    assert what in result.stderr
