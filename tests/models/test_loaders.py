"""Every format, from a real file, loaded in a fresh process; trust asked, refused and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import Made, load_afresh

NAMES = (
    "folder",
    "folder zip",
    "state dict",
    "safetensors",
    "3-D, odd, old format",
    "monai",
    "factory",
    "torchscript",
    "torchscript, frozen",
    "exported, fixed",
    "exported, free",
    "bundle",
    "bundle with code",
    "bioimage.io",
)
NEED_TRUST = ("factory", "torchscript", "torchscript, frozen", "exported, fixed", "exported, free")
NEED_TRUST += ("bundle with code", "bioimage.io")


@pytest.fixture(scope="session")
def answers(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Three rounds in two processes with one home: untrusted; trusted; untrusted again, when trust is remembered."""
    place, home = tmp_path_factory.mktemp("answers"), tmp_path_factory.mktemp("trusting")

    def jobs(round_: str, *, trust: bool) -> list[dict[str, Any]]:
        out = []
        for number, model in enumerate(made.values()):
            torch.save(model.image, place / f"{number}.image")
            files = {"image": str(place / f"{number}.image"), "logits": str(place / f"{number}.{round_}")}
            out.append({"source": model.source, "options": model.options, "trust": trust, **files})
        return out

    first = load_afresh(jobs("refused", trust=False) + jobs("trusted", trust=True), place, home)
    count = len(made)
    late_jobs = [job for job in jobs("again", trust=False) if _asked_again(job["source"])]
    remembered = iter(load_afresh(late_jobs, place, home))
    out = {}
    for number, (name, model) in enumerate(made.items()):
        late = next(remembered) if _asked_again(model.source) else None
        logits = place / f"{number}.trusted"
        out[name] = {
            "untrusted": first[number],
            "trusted": first[count + number],
            "again": late,
            "logits": torch.load(logits) if logits.is_file() else None,
        }
    return out


def _asked_again(source: str) -> bool:
    return "net.py" in source or ".pt2" in source


def test_names_are_complete(made: dict[str, Made]) -> None:
    assert set(made) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_same_logits_in_a_fresh_process(name: str, made: dict[str, Made], answers: dict[str, Any]) -> None:
    answer = answers[name]
    assert "error" not in answer["trusted"], answer["trusted"]
    assert answer["logits"].shape == made[name].logits.shape
    torch.testing.assert_close(answer["logits"], made[name].logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_code_needs_trust_and_data_does_not(name: str, answers: dict[str, Any]) -> None:
    untrusted = answers[name]["untrusted"]
    if name not in NEED_TRUST:
        assert "error" not in untrusted, untrusted
        return
    assert untrusted["error"] == "UntrustedModel"
    assert "sha256" in untrusted["what"]
    assert "--trust" in untrusted["fix"]
    assert "Trust this file" in untrusted["fix"]


@pytest.mark.parametrize("name", ["factory", "exported, fixed", "exported, free"])
def test_trust_is_remembered(name: str, answers: dict[str, Any]) -> None:
    assert "error" not in answers[name]["again"]


@pytest.mark.parametrize("name", NAMES)
def test_fingerprint_and_layers(name: str, answers: dict[str, Any], made: dict[str, Made]) -> None:
    told = answers[name]["trusted"]
    assert len(told["spec"]["sha256"]) == 64
    assert told["layered"] == (not name.startswith(("torchscript", "exported")))
    assert told["source"] == made[name].source


def spec(answers: dict[str, Any], name: str) -> dict[str, Any]:
    return answers[name]["trusted"]["spec"]


def names(told: dict[str, Any]) -> list[str]:
    return [c["name"] for c in told["classes"]]


def test_what_is_not_described_is_found_out(answers: dict[str, Any]) -> None:
    told = spec(answers, "state dict")
    assert (told["axes"], told["channels"], told["divisor"]) == ("YX", ["grey"], 2)
    assert names(told) == ["background", "class 1", "class 2"]
    solid = spec(answers, "3-D, odd, old format")
    assert (solid["axes"], solid["divisor"], solid["batch"]) == ("ZYX", 2, None)
    assert spec(answers, "monai")["channels"] == ["channel 1", "channel 2"]
    assert spec(answers, "monai")["min_size"] == 32


def test_a_description_beside_the_file_counts(answers: dict[str, Any]) -> None:
    for name in ("folder", "safetensors", "torchscript"):
        assert names(spec(answers, name)) == ["background", "cell", "border"]
        assert spec(answers, name)["channels"] == ["dye"]


def test_fixed_and_free_graphs(answers: dict[str, Any]) -> None:
    fixed, free = spec(answers, "exported, fixed"), spec(answers, "exported, free")
    assert (fixed["size"], fixed["batch"]) == ([16, 16], 1)
    assert (free["size"], free["batch"], free["divisor"]) == (None, None, 2)


def test_package_description(answers: dict[str, Any]) -> None:
    told = spec(answers, "bioimage.io")
    assert (told["name"], told["licence"], told["multilabel"], told["head"]) == (
        "Packaged model",
        "MIT",
        True,
        "logits",
    )
    assert names(told) == ["background", "nucleus"]
    assert (told["divisor"], told["min_size"], told["halo"], told["pixel_size"]) == (8, 16, [4, 4], [0.5, 0.5])
    assert (told["normalisation"]["kind"], told["normalisation"]["mean"], told["normalisation"]["std"]) == (
        "fixed",
        [0.5],
        [0.25],
    )


def test_bundle_description(answers: dict[str, Any]) -> None:
    told = spec(answers, "bundle")
    assert (told["name"], told["channels"], names(told)) == ("A bundle", ["CT"], ["background", "liver", "spleen"])
    assert (told["normalisation"]["kind"], told["normalisation"]["std"]) == ("fixed", [200.0])


def test_nothing_was_written_beside_the_models(made: dict[str, Made], answers: dict[str, Any]) -> None:
    place = Path(made["folder"].source).parent
    assert not list(place.rglob("__pycache__"))
