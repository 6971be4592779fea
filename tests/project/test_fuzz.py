"""Texts from outside: none but the package's own errors, whatever stands there. More of it: benchmarks/fuzz.py."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.fuzz import _give_up, fuzz
from benchmarks.targets import Served, targets
from convert.adapter import read_adapter
from convert.checkpoint import _indexed
from convert.record import TrainingRecord
from convert.tokenizer_files import read_json as read_tokenizer
from sgft_edge.errors import EngineError, SgftError
from sgft_edge.host.files import read_json
from sgft_edge.llama.tuning import tuning_for
from sgft_edge.reasoning.settings import Settings
from sgft_edge.solving.default import own_default
from sgft_edge.store.manifest import read_entries
from sgft_edge.terminal.session import Session
from train.settings import read_settings

DEEP = "[" * 100_000
NAMES = (
    "arithmetic", "program", "guidance", "answers", "numerals", "calculations", "markup", "conversation", "template",
    "schema", "problems", "rows", "header", "endpoint", "conversation file", "models.toml",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("saved.json", DEEP, lambda path: Session(None, Settings()).load(path)),
        ("models.toml", f"a = {DEEP}", lambda path: read_entries(path, own=True)),
        ("train.toml", f"a = {DEEP}", lambda path: read_settings(path, {})),
        ("training.json", DEEP, lambda path: TrainingRecord.read(path.parent)),
        ("adapter_config.json", DEEP, lambda path: read_adapter(path.parent)),
        ("tokenizer_config.json", DEEP, lambda path: read_tokenizer(path, needed=True)),
        ("model.safetensors.index.json", DEEP, _indexed),
    ],
)
def test_a_file_that_is_nested_too_deep_is_refused(
    tmp_path: Path, name: str, text: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SgftError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_what_can_be_made_again_is_taken_for_damaged(folders: Path) -> None:
    path = folders / "digests.json"
    path.write_text(DEEP)
    assert read_json(path) == {}
    config = folders / "config"
    config.mkdir()
    for name in ("machine.toml", "defaults.toml"):
        (config / name).write_text(f"a = {DEEP}")
    tuning, (warning,) = tuning_for("0" * 64)
    assert tuning is None
    assert "it is ignored" in warning
    with pytest.raises(SgftError, match=r"defaults\.toml"):
        own_default()


def test_an_endpoint_that_replies_with_anything() -> None:
    served = Served()
    with pytest.raises(EngineError, match="expected a chat completion"):
        served(DEEP.encode())
    reply = served(
        b'{"choices": [{"finish_reason": "stop", "message": {"content": "5"}}], '
        b'"usage": {"prompt_tokens": null, "completion_tokens": "x"}}'
    )
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("5", 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutated_texts(tmp_path: Path, name: str) -> None:
    before = signal.signal(signal.SIGVTALRM, _give_up)
    try:
        known = targets(tmp_path)
        assert set(known) == set(NAMES)
        finds = fuzz(known[name], 60.0, f"1 {name}", most=1000)
    finally:
        signal.signal(signal.SIGVTALRM, before)
    assert finds.uncaught == {}
    assert finds.slow == []
