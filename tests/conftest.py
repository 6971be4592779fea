"""What every test gets: folders of its own, property tests that are quick and always the same, and small models."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import tiny
from browser import browser, server, visit  # noqa: F401 - fixtures
from hypothesis import HealthCheck, settings
from wheelhouse import index  # noqa: F401 - a fixture

from sgft_edge.errors import SgftError
from sgft_edge.store.manifest import Manifest
from sgft_edge.store.places import locate
from sgft_edge.store.pull import pull

settings.register_profile(
    "sgft-edge", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sgft-edge")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children

FOLDERS = ("SGFT_EDGE_MODELS", "SGFT_EDGE_CONFIG", "SGFT_EDGE_CACHE")
USER_FOLDERS = {name: os.environ.get(name) for name in FOLDERS}  # read before any test redirects them


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the real user's folders out of the tests; none of these exists yet."""
    for name in FOLDERS:
        monkeypatch.setenv(name, str(tmp_path / name.removeprefix("SGFT_EDGE_").lower()))
    monkeypatch.setenv("SGFT_EDGE_TRIAL", "off")  # a process for each tiny model takes a second; `trial` switches it on
    return tmp_path


@pytest.fixture
def trial(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model files are tried before they are opened, as outside the tests."""
    monkeypatch.delenv("SGFT_EDGE_TRIAL")


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that is GGUF as far as its first bytes tell."""
    path = tmp_path / "elsewhere" / "My Model.gguf"
    path.parent.mkdir()
    path.write_bytes(b"GGUF\x03\x00\x00\x00 a model")
    return path


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models of three architectures, `llama`, `qwen2` and `mamba`, and two adapters of `llama`."""
    folder = tmp_path_factory.mktemp("tiny")
    for arch in ("llama", "qwen2", "mamba"):
        tiny.tiny_model(folder / f"{arch}.gguf", arch)
    for seed, name in enumerate(("lora", "other_lora"), start=1):
        tiny.tiny_adapter(folder / f"{name}.gguf", folder / "llama.gguf", seed=seed)
    return folder


@pytest.fixture(scope="session")
def llama(tiny_files: Path) -> Path:
    return tiny_files / "llama.gguf"


@pytest.fixture(scope="session")
def lora(tiny_files: Path) -> Path:
    return tiny_files / "lora.gguf"


@pytest.fixture(scope="session")
def smollm2() -> Iterator[Path]:
    """SmolLM2: the file in SGFT_EDGE_TEST_SMOLLM2, else the user's own, else one fetched and kept for tests.

    A test that needs it is skipped where it can't be had.
    """
    entry = Manifest.load().get("smollm2")
    if named := os.environ.get("SGFT_EDGE_TEST_SMOLLM2"):
        yield Path(named)
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in USER_FOLDERS.items():
            patch.setenv(name, value) if value else patch.delenv(name, raising=False)
        found = locate(entry)
        if found is None:
            cache = platformdirs.user_cache_path("sgft-edge-tests", appauthor=False)
            patch.setenv("SGFT_EDGE_MODELS", str(cache))
            patch.setenv("SGFT_EDGE_CACHE", str(cache))
            try:
                found = pull(entry)
            except SgftError as e:
                pytest.skip(f"SmolLM2 is not on this machine and cannot be fetched: {e}")
    yield found
