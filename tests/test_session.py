"""The session: records that run again, as command line and as Python; artefacts; other needs."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tifffile

import seglens
from hand import Context, Deep, cell_target, context_image, small_image, wrap
from seglens.app.cli import main as cli  # noqa: F401  # the console script must import
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.explanation import Explanation, Layer, Record
from seglens.core.method import Artefact, Method, Need
from seglens.core.rerun import as_cli, as_python
from seglens.core.run import Run
from seglens.core.saving import save_record
from seglens.core.target import Border, Box, Object, Painted, Point, Target
from seglens.session import _cost_told, explain

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.head = torch.nn.Conv2d(6, 2, 1)
    def forward(self, x):
        return self.head(self.features(x).relu())
def build():
    return Net()
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A stack, a mask and a factory on disk; trust is remembered in a folder of the test."""
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "stack.tif", rng.random((3, 40, 44)).astype(np.float32), metadata={"axes": "TYX"})
    mask = np.zeros((30, 44), np.uint8)
    mask[5:15, 8:20] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def test_a_record_runs_again_as_command_and_as_script(files):
    from seglens.models.trust import Trust

    model = seglens.load_model(f"{files / 'net.py'}:build", trust=Trust.always())
    image = seglens.open_image(files / "stack.tif").select(T=1).crop(Y=slice(10, 40))
    mask = seglens.read_mask(files / "mask.tif")
    target = Target(1, Painted(mask, str(files / "mask.tif")), "margin")
    first = explain("occlusion", image, model, target, run=Run(seed=4), window=10, stride=5, fill="noise")

    command = as_cli(first.record, out=str(files / "again")).replace("seglens", f"{sys.executable} -m seglens", 1)
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    again = tifffile.imread(next((files / "again").glob("*occlusion*.tif")))
    np.testing.assert_allclose(again, first.map.data, atol=1e-6)

    script = as_python(first.record) + f"\nimport numpy; numpy.save({str(files / 'out.npy')!r}, explanation.map.data)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(files / "out.npy"), first.map.data, atol=1e-6)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (Point((3, 4)), "--point 3,4"),
        (Object(2), "--object 2"),
        (Object(at=(3, 4)), "--object-at 3,4"),
        (Box((0, 1), (5, 6), False), "--box 0,1:5,6 --whole-box"),
        (Border(Object(2), 3), "--border 3 --object 2"),
    ],
)
def test_every_region_has_its_words(region, words):
    record = Record(
        "occlusion", {}, Target("cell", region).describe(), {"source": "m"}, {"source": "a b.tif"}, 0, {}, "cpu", {}, 0
    )
    assert words in as_cli(record)
    assert "'a b.tif'" in as_cli(record)
    code = as_python(record)
    made = eval(code[code.index("seglens.Target(") : code.index("\nexplanation")])
    assert made.region == region


def told():
    return Record("occlusion", {"window": 8}, Target("cell").describe(), {"source": "m"}, {"source": "a.tif"}, 0, {},
                  "cpu", {}, 0)  # fmt: skip


@pytest.mark.parametrize("words", [as_cli, as_python])
def test_a_record_may_come_from_its_file(words, tmp_path):
    wanted = words(told())
    file = save_record(told(), tmp_path)
    assert words(file) == words(str(file)) == words(tmp_path) == wanted
    assert words(told().to_dict()) == words(json.loads(file.read_text())) == wanted


@pytest.mark.parametrize(
    ("given", "what", "fix"),
    [
        ([{}, {}], "A list of 2 is no record", "answer.record"),
        (None, "A NoneType is no record", "json.load"),
        ({"method": "occlusion"}, "parameters is missing, target is missing", "seglens explain"),
        (told().to_dict() | {"more": 1, "image": "a"}, "more is unknown, image is no table", "seglens explain"),
    ],
)
def test_what_is_no_record_is_refused_in_words(given, what, fix, tmp_path):
    for words in (as_cli, as_python):
        with pytest.raises(BadParameter, match=what) as caught:
            words(given)
        assert fix in caught.value.fix
    # the same from a file
    (tmp_path / "record.json").write_text(json.dumps(given))
    with pytest.raises(BadParameter, match=what):
        as_cli(tmp_path)


def test_a_file_that_holds_no_record_is_refused_in_words(tmp_path):
    with pytest.raises(BadParameter, match=r"There is no record at .*none\.json"):
        as_cli(tmp_path / "none.json")
    (tmp_path / "object-0001").mkdir()
    save_record(told(), tmp_path / "object-0001")
    with pytest.raises(BadParameter, match="There is no record at") as caught:
        as_cli(tmp_path)
    assert "object-0001" in caught.value.fix
    (tmp_path / "text.txt").write_text("occlusion")
    with pytest.raises(BadParameter, match=r"text\.txt cannot be read"):
        as_cli(tmp_path / "text.txt")


def test_record_tells_what_was_asked_and_what_it_cost():
    image, cell, _ = context_image()
    record = explain("occlusion", image, wrap(Context(), classes=("background", "healthy", "infected")),
                     cell_target(cell), window=12, stride=12).record  # fmt: skip
    # the image, a crop of it to check, and again as the engine runs it; not each of the 4 × 5 windows
    assert record.cost["forwards"] < 1 + 4 * 5 + 2
    assert record.cost["forwards of a plain loop"] == 4 * 5
    assert record.target["resolved"]["pixels"] == int(cell.sum())
    assert record.parameters["window"] == 12
    assert record.versions["torch"]
    assert record == Record.from_dict(record.to_dict())


class Trained(Method):
    """A method that trains: prepared once for a value and a model."""

    title, cite, family = "Trained", "nobody", "perturbation"
    needs = frozenset({Need.TRAINING})
    prepared = []

    def prepare(self, case):
        self.prepared.append(case.model.spec.name)
        case.run.progress(1, 1, "epochs")
        return Artefact({"weights": np.ones(3)}, {"epochs": 1})

    def run(self, case):
        total = case.artefact.arrays["weights"].sum()
        return Explanation((Layer("map", "heat", np.full(case.shape, total)),), text="done")


class Compared(Method):
    """A method that compares two models."""

    title, cite, family = "Compared", "nobody", "perturbation"
    needs = frozenset({Need.SECOND_MODEL})

    def run(self, case):
        difference = (case.logits - case.second.logits).abs().amax(1)[0]
        return Explanation((Layer("difference", "heat", difference.numpy()),))


class Neighbours(Method):
    """A method that needs other images."""

    title, cite, family = "Neighbours", "nobody", "prototype"
    needs = frozenset({Need.REFERENCE, Need.ANNOTATION})

    def run(self, case):
        return Explanation(text=f"{len(case.reference)} {case.annotation.sum()}")


def test_preparation_happens_once_and_reaches_the_run():
    image, target = small_image(), Target(1, Point((3, 3)))
    model = wrap(Deep())
    assert explain(Trained(), image, model, target).map.data.max() == 3
    explain(Trained(), image, model, target)
    assert len(Trained.prepared) == 1
    explain(Trained(), image, wrap(Deep(seed=1)), target)
    assert len(Trained.prepared) == 2


def test_a_second_model_and_references_reach_the_method():
    image, target = small_image(), Target(1, Point((3, 3)))
    one, two = wrap(Deep()), wrap(Deep(seed=1))
    assert explain(Compared(), image, one, target, second_model=two).map.data.max() > 0
    assert explain(Compared(), image, one, target, second_model=one).map.data.max() == 0
    answer = explain(Neighbours(), image, one, target, reference=(image,), annotation=np.ones((24, 27)))
    assert answer.text.startswith("1 648")


@pytest.mark.parametrize(
    ("method", "given", "word"),
    [
        (Compared(), {}, "compares two models"),
        (Neighbours(), {"annotation": np.ones(1)}, "other images"),
        (Neighbours(), {"reference": (small_image(),)}, "mask drawn by a person"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(method, given, word):
    with pytest.raises(MissingNeed) as caught:
        explain(method, small_image(), wrap(Deep()), Target(1, Point((3, 3))), **given)
    assert word in caught.value.what
    assert caught.value.what.count(".") == 1


@pytest.mark.parametrize(
    ("forwards", "plain", "seconds", "told"),
    [
        (0.004, 0, 0.0, "Less than 0.1 forward passes, less than a second here."),
        (0.34, 961, 0.6, "About 0.3 forward passes instead of 961, less than a second here."),
        (95.2, 961, 31.4, "About 95 forward passes instead of 961, 31 s here."),
        (1001, 1000, 300, "About 1001 forward passes, 5 min here."),
    ],
)
def test_what_it_takes_is_told_in_round_numbers(forwards, plain, seconds, told):
    assert _cost_told(forwards, plain, seconds) == told
