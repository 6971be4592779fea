"""The table of strategies, and what is loaded to read it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sgft_edge.reasoning import settings
from sgft_edge.reasoning.strategies import STRATEGIES


def test_settings_and_table_name_the_same() -> None:
    assert {"auto", *STRATEGIES} == set(settings.STRATEGIES)


@pytest.mark.parametrize("module", ["sgft_edge.reasoning.strategies", "sgft_edge.answers.extraction", "train.check_sg"])
def test_texts_and_strategies_load_no_engine(module: str) -> None:
    code = f"import sys, {module}; print(*({{'llama_cpp', 'torch'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
