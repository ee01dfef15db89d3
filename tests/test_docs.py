"""What the documentation says is true: its Python runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

import seglens
from seglens.app.cli import main
from seglens.app.napari import words
from seglens.core.errors import SegLensError
from seglens.training.recipes import RECIPES

ROOT = Path(__file__).parent.parent
PAGES = {
    str(p.relative_to(ROOT)): p for p in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
}
# Its method is installed by a test of its own.
ELSEWHERE = {"docs/add-a-method.md"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"(`+).+?\1", re.DOTALL)


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page, in some languages."""
    return [text for language, text in FENCE.findall(PAGES[page].read_text(encoding="utf-8")) if language in languages]


def commands(page: str) -> list[str]:
    """Every line that calls seglens, with its continuations."""
    lines = "\n".join(blocks(page, "", "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("seglens ")]


PYTHON = [(page, number) for page in PAGES for number, _ in enumerate(blocks(page, "python"))]
COMMANDS = [(page, line) for page in PAGES if page not in ELSEWHERE for line in commands(page)]
# A block that opens a sample needs nothing that is not here.
COMPLETE = [(page, number) for page, number in PYTHON if "sample:" in blocks(page, "python")[number]]


@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_python_compiles(page, number):
    compile(blocks(page, "python")[number], page, "exec")


@pytest.mark.parametrize(("page", "number"), COMPLETE)
def test_complete_python_runs(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path / "home"))
    exec(compile(blocks(page, "python")[number], page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_command_parses(page, line):
    typed = shlex.split(line, comments=True)
    assert typed[0] == "seglens"
    parse(main, "seglens", typed[1:])


def test_documentation_shows_every_command():
    shown = {shlex.split(line)[1] for page, line in COMMANDS if page == "docs/command-line.md"}
    assert set(main.list_commands(click.Context(main))) <= shown


@pytest.mark.parametrize(("page", "line"), [c for c in COMMANDS if "--model" in c[1]])
def test_named_models_and_samples_exist(page, line):
    from seglens.sample_data import open_sample

    typed = shlex.split(line, comments=True)
    model = typed[typed.index("--model") + 1]
    assert model in RECIPES or Path(model).suffix or "/" in model, model
    samples = {word.removeprefix("sample:") for word in typed if word.startswith("sample:")}
    assert all(open_sample(sample).shape for sample in samples)


@pytest.mark.parametrize("line", ["seglens explian", "seglens segment", "seglens models --colour", "seglens explain x"])
def test_a_wrong_command_would_be_found(line):
    with pytest.raises((click.UsageError, SegLensError)):
        parse(main, "seglens", shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = CODE.sub("", FENCE.sub("", PAGES[page].read_text(encoding="utf-8")))
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        there = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert there.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{link}: no such heading"


def test_every_page_is_in_the_table_of_contents():
    index = PAGES["docs/index.md"].read_text(encoding="utf-8")
    pages = {p.name for p in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_page_of_the_plugin_has_its_words_and_shortcuts():
    text = PAGES["docs/napari.md"].read_text(encoding="utf-8")
    labels = [label for table in (words.SCOPES, words.OUTPUTS, words.REGIONS) for label, _ in table.values()]
    assert [word for word in (*words.KEYS.values(), *labels) if word not in text] == []


def test_page_of_the_command_line_has_the_files_of_a_run(tmp_path):
    from click.testing import CliRunner

    out = tmp_path / "out"
    arguments = ["vanilla-gradient", "sample:shortcut", "--model", "shortcut-synthetic", "--point", "54,130"]
    assert CliRunner().invoke(main, ["explain", *arguments, "--out", str(out)]).exit_code == 0
    text = PAGES["docs/command-line.md"].read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w*-]+\.[\w.]+)`", text))
    assert [p.name for p in out.iterdir() if not any(fnmatch(p.name, pattern) for pattern in named)] == []


def test_readme_is_short():
    assert len(PAGES["README.md"].read_text(encoding="utf-8").splitlines()) < 180


def test_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert versions[0] == seglens.__version__


@pytest.mark.parametrize("name", list(seglens.METHODS))
def test_reference_of_a_method_is_known(name):
    keys = re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "docs" / "references.bib").read_text(encoding="utf-8"), re.M)
    assert seglens.METHODS[name].cite in keys


def parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Read a command line as click would, and run nothing.

    Raises:
        click.UsageError, SegLensError: there is no such command, method or option, or one is missing.
    """
    try:
        context = command.make_context(name, list(words), parent=parent)
    except click.exceptions.Exit:  # --help and --version answer at once
        return
    if isinstance(command, click.Group):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        chosen, inner, left = command.resolve_command(context, rest)
        assert inner is not None
        parse(inner, chosen or "", left, context)


def anchors(text: str) -> set[str]:
    """The headings of a page as links name them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
