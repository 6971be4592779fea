"""Every command can be started as `sgft-edge NAME` and as `python -m sgft_edge.NAME`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from sgft_edge import cli

DOORS = list(cli.command.list_commands(None))  # type: ignore[arg-type]


def started(*module_and_arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *module_and_arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", DOORS)
def test_each_command_starts_as_a_module(name: str) -> None:
    done = started(f"sgft_edge.{name}", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: sgft-edge {name} ")
    assert started(f"sgft_edge.{name}", "--no-such-option").returncode == 2


@pytest.mark.parametrize("name", DOORS)
def test_help_loads_no_engine(name: str) -> None:
    heavy = "{'llama_cpp', 'numpy', 'torch'} & set(sys.modules)"
    code = f"import sys; from sgft_edge.{name} import main; main(['--help']); print('loaded:', *sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr


def test_the_package_starts_as_a_module() -> None:
    done = started("sgft_edge", "--help")
    assert done.returncode == 0
    assert done.stdout == CliRunner().invoke(cli.command, ["--help"], prog_name="sgft-edge").output
    assert started("sgft_edge", "nothing").returncode == 2
