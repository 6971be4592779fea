"""The README's commands exist, and its tree is the tree."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = README + (ROOT / "docs" / "performance.md").read_text()
COMMANDS = re.findall(r"^(?:\.venv/bin/)?sgft-edge (.+?)(?:\s+#.*)?$", DOCUMENTS, re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_commands_are_understood(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = importlib.import_module(f"sgft_edge.{name}").command
    command.make_context(name, arguments)  # raises for an unknown option or argument


def test_the_tree_names_every_module_and_no_other() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    folders = [ROOT / name for name in ("sgft_edge", "convert", "train")]
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
