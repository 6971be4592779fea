"""What every test gets: folders of its own, and property tests that are quick and always the same."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "sgft-edge", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sgft-edge")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the real user's folders out of the tests; none of these exists yet."""
    for kind in ("models", "config", "cache"):
        monkeypatch.setenv(f"SGFT_EDGE_{kind.upper()}", str(tmp_path / kind))
    return tmp_path


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that is GGUF as far as its first bytes tell."""
    path = tmp_path / "elsewhere" / "My Model.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF\x03\x00\x00\x00 a model")
    return path
