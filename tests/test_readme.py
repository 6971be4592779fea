"""The README's commands exist, and its tree is the tree."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = README + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
COMMANDS = re.findall(r"^(?:\.venv/bin/)?sgft-edge (.+?)(?:\s+#.*)?$", DOCUMENTS, re.MULTILINE)


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


def test_the_tree_names_every_module_and_no_other() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    folders = [ROOT / name for name in ("sgft_edge", "sgft_edge/server", "convert", "train")]
    assert named == {path.name for folder in folders for path in folder.glob("*.py")} - {"__init__.py"}


@pytest.mark.parametrize("target", re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_python_example_names_what_there_is() -> None:
    import sgft_edge

    example = README.split("```python")[1].split("```")[0]
    compile(example, "README.md", "exec")
    for name in re.findall(r"from sgft_edge import (.+)", example)[0].split(", "):
        assert hasattr(sgft_edge, name)
