"""An engine of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sgft_edge.llama.engine import Engine


@pytest.fixture
def engine(llama: Path) -> Iterator[Engine]:
    engine = Engine(llama, slots=3, window=1024, threads=2)
    yield engine
    engine.close()
