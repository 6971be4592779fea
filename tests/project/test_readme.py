"""The pages are true where a test can tell: commands, options, modules, the tree, links."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = README + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
COMMANDS = re.findall(r"^(?:\.venv/bin/)?sgft-edge (.+?)(?:\s+#.*)?$", DOCUMENTS, re.MULTILINE)
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "models/*.md", "train/data/*.md")
    for path in ROOT.glob(pattern)
)
LINKS = [
    (page.relative_to(ROOT).as_posix(), link)
    for page in PAGES
    for link in sorted(set(re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())))
]
PYTHON = re.findall(r"^```python\n(.+?)^```", DOCUMENTS, re.MULTILINE | re.DOTALL)


MODULES = re.findall(
    r"^(?:\.venv/bin/)?python (?:-m )?((?:convert|train)[./]\w+)(?:\.py)? (.+)$", DOCUMENTS, re.MULTILINE
)


@pytest.mark.parametrize(("module", "line"), sorted(set(MODULES)))
def test_options_of_modules_exist(module: str, line: str) -> None:
    command = importlib.import_module(module.replace("/", ".")).command
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in shlex.split(line) if word.startswith("--")} <= known


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_commands_are_understood(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = importlib.import_module(f"sgft_edge.{name}").command
    command.make_context(name, arguments)  # raises for an unknown option or argument


def test_the_tree_names_every_room_and_door_and_no_other() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    runtime = re.split(r"^(?=\w)", tree, flags=re.MULTILINE)[1]
    package = ROOT / "sgft_edge"
    assert runtime.startswith("sgft_edge/")
    rooms = re.findall(r"^  (\w+)/", runtime, re.MULTILINE)
    assert sorted(rooms) == sorted(path.parent.name for path in package.glob("*/__init__.py"))
    doors = set(re.findall(r"\b(\w+\.py)\b", runtime))
    assert doors == {path.name for path in package.glob("*.py")} - {"__init__.py"}


def test_the_tree_names_what_there_is() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    assert all((ROOT / name).is_dir() for name in re.findall(r"^(\w+)/", tree, re.MULTILINE))


@pytest.mark.parametrize(("page", "folder"), [("docs/conversion.md", "convert"), ("docs/training.md", "train")])
def test_the_files_of_a_folder_stand_in_its_page(page: str, folder: str) -> None:
    table = (ROOT / page).read_text().split(f"## The files of `{folder}/`")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+\.py)`", table))
    assert named == {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}


def test_every_benchmark_stands_in_the_table() -> None:
    folder = ROOT / "benchmarks"
    named = set(re.findall(r"`(?:benchmarks/)?(\w+\.(?:py|sh))[` ]", (folder / "README.md").read_text()))
    assert named == {path.name for pattern in ("*.py", "*.sh") for path in folder.glob(pattern)} - {"__init__.py"}


@pytest.mark.parametrize("target", re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.read_text())


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("example", PYTHON)
def test_python_examples_name_what_there_is(example: str) -> None:
    import sgft_edge

    compile(example, "example", "exec")
    for names in re.findall(r"from sgft_edge import (.+)", example):
        assert all(hasattr(sgft_edge, name) for name in names.split(", "))


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (ROOT / "sgft_edge").glob("*/__init__.py")))
def test_a_room_names_its_files(room: str) -> None:
    folder = ROOT / "sgft_edge" / room
    told = (folder / "__init__.py").read_text(encoding="utf-8")
    assert {path.name for path in folder.glob("*.py")} - {"__init__.py"} == set(re.findall(r"\b\w+\.py\b", told))
