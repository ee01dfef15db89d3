"""Whatever is wrong, API and command line say the same two sentences, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import seglens
from bad_input import CASES, Bad, Made
from seglens.app.cli import main
from seglens.core.errors import SegLensError
from seglens.models.trust import Trust


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's remembered trust is read or changed."""
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path_factory.mktemp("home")))


def through_api(made: Made) -> None:
    """Ask in Python."""
    method = seglens.METHODS[made.method].from_values(made.params)
    image = seglens.open_image(made.image)
    trust = Trust.always() if made.trust else Trust.never()
    model = seglens.load_model(made.model, trust=trust, device="cpu")
    region: object = seglens.Predicted()
    if "region" in made.target:
        shape = image.space(model.spec.axes)
        region = seglens.Painted(seglens.read_mask(made.target["region"], shape), made.target["region"])
    elif "point" in made.target:
        region = seglens.Point(made.target["point"])
    elif "object" in made.target:
        region = seglens.Object(made.target["object"])
    seglens.explain(method, image, model, seglens.Target(made.target.get("class"), region))  # type: ignore[arg-type]


def through_cli(made: Made, out: Path) -> Result:
    """Ask on the command line."""
    words = ["explain", made.method, made.image, "--model", made.model, "--device", "cpu", "--out", str(out)]
    for name, value in {**made.params, **made.target}.items():
        words += [f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return CliRunner().invoke(main, words + ["--trust"] * made.trust)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_api_says_what_and_what_to_do(case: Bad, tmp_path: Path) -> None:
    with pytest.raises(SegLensError) as caught:
        through_api(case.make(tmp_path))
    assert case.what in caught.value.what
    assert case.fix in caught.value.fix
    assert caught.value.what.strip()[-1] in ".?!)"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_command_line_says_the_same(case: Bad, tmp_path: Path) -> None:
    result = through_cli(case.make(tmp_path), tmp_path / "out")
    assert result.exit_code == 2, result.output
    first, second = result.stderr.removeprefix("Error: ").split("\n", 1)
    assert case.what in first
    assert case.fix in second
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_the_good_case_works(tmp_path: Path) -> None:
    made = Bad("good", "", "", "", params={"window": 8}).make(tmp_path)
    through_api(made)
    result = through_cli(made, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "overview.png").is_file()
