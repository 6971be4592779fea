"""llama.cpp's own converters, run as they stand, and what it takes to compare their files with ours.

They are Python scripts in llama.cpp's source, which the source package of llama-cpp-python carries.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import gguf
import numpy as np
import platformdirs
from gguf import GGUFValueType
from tiny import Entry, Tokenizer

_WANTED = re.compile(r"convert_(hf|lora)_to_gguf\.py|(conversion|gguf-py)/.*\.py|models/ggml-vocab-.*\.gguf|LICENSE")
_GENERAL = tuple(f"general.{key}" for key in ("architecture", "type", "file_type", "quantization_version"))

# Both scripts begin with seconds of imports, so one process runs them all, each anew as `python SCRIPT` would. What
# they print goes to the log; a reply is null, or a traceback.
_WORKER = """
import json, os, runpy, sys, traceback
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    sys.argv = json.loads(line)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        assert sys.modules["gguf"].__file__.startswith(os.getcwd()), "they ran with another gguf than their own"
        error = None
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps(error), file=replies, flush=True)
"""


class NoSource(Exception):
    """llama.cpp's source cannot be had."""


def llama_cpp_source(whole: bool = False) -> Path:
    """The tree in SGFT_EDGE_TEST_LLAMA_CPP, else that of the installed llama-cpp-python, fetched once and kept.

    Only the scripts and what they need, unless `whole`. Raises `NoSource`.
    """
    if named := os.environ.get("SGFT_EDGE_TEST_LLAMA_CPP"):
        return Path(named).resolve()
    version = importlib.metadata.version("llama-cpp-python")
    cache = platformdirs.user_cache_path("sgft-edge-tests", appauthor=False)
    kept = cache / f"llama.cpp-of-llama-cpp-python-{version}{'-whole' if whole else ''}"
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            fresh = Path(name) / "source"
            _extract(_download(version, Path(name)), fresh, whole)
            try:
                fresh.rename(kept)
            except OSError:  # another run was quicker
                if not kept.is_dir():
                    raise
    return kept


def _download(version: str, folder: Path) -> Path:
    package = "llama-cpp-python"
    command = [sys.executable, "-m", "pip", "download", f"{package}=={version}", "--no-deps", "--no-binary", package]
    try:
        run = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired as e:
        raise NoSource(f"{package} {version} was not fetched within {e.timeout:g} s") from e
    found = sorted(folder.glob("*.tar.gz"))
    if run.returncode or not found:
        raise NoSource(f"the source of {package} {version} cannot be fetched: {run.stderr.strip()[-300:]}")
    return found[0]


def compiled(tool: str) -> Path:
    """One of llama.cpp's programs, compiled from that source, once, in minutes. Raises `NoSource`."""
    source = llama_cpp_source(whole=True)
    build = source / "build-for-tests"
    program = build / "bin" / tool
    if not program.is_file():
        if shutil.which("cmake") is None:
            raise NoSource(f"{tool} must be compiled, and there is no cmake")
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF"]
        subprocess.run(["cmake", "-S", source, "-B", build, *options], check=True, capture_output=True)
        subprocess.run(["cmake", "--build", build, "--target", tool, "-j", "2"], check=True, capture_output=True)
    return program


def _extract(archive: Path, target: Path, whole: bool) -> None:
    """Unpack the scripts, what they import, and the vocabularies; or all."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/vendor/llama.cpp/")
            if member.isfile() and name and (whole or _WANTED.fullmatch(name)):
                member.name = name
                tar.extract(member, target, filter="data")
    if not (target / "convert_hf_to_gguf.py").is_file():
        raise NoSource(f"{archive.name} holds no vendor/llama.cpp/convert_hf_to_gguf.py")


class Scripts:
    """llama.cpp's scripts in a process of their own; `source` is the tree that they come from."""

    def __init__(self, source: Path, worker: subprocess.Popen[str]) -> None:
        self.source, self._worker = source, worker

    def convert_model(self, folder: Path, target: Path, type_name: str) -> Path:
        """Run `convert_hf_to_gguf.py` on a folder that transformers wrote."""
        return self._run("convert_hf_to_gguf.py", folder, target, type_name)

    def convert_lora(self, folder: Path, base: Path, target: Path, type_name: str) -> Path:
        """Run `convert_lora_to_gguf.py` on a folder that PEFT wrote."""
        return self._run("convert_lora_to_gguf.py", folder, target, type_name, "--base", str(base))

    def _run(self, script: str, folder: Path, target: Path, type_name: str, *options: str) -> Path:
        command = [script, str(folder), "--outfile", str(target), "--outtype", type_name.lower(), *options]
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(command) + "\n")
        self._worker.stdin.flush()
        reply = self._worker.stdout.readline()
        assert reply == "null\n", f"{script} failed: {json.loads(reply) if reply else 'its process ended'}"
        return target


@contextmanager
def running(source: Path, log: IO[str]) -> Iterator[Scripts]:
    """The scripts of a source tree, without a network; what they print goes to `log`."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("NO_LOCAL_GGUF", None)
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER],
        cwd=source,  # the first place where Python looks for what they import
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        yield Scripts(source, worker)
    finally:
        worker.communicate()


class Reader(gguf.GGUFReader):
    """A GGUF file. The `gguf` package makes a numpy view of every item of an array: seconds for a large vocabulary."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        data = memoryview(self.data)
        item, count = struct.unpack_from("<IQ", data, orig_offs)
        start = orig_offs + 12
        if item != GGUFValueType.STRING:
            values = self._get(start, self.gguf_scalar_to_np[GGUFValueType(item)], count)
            return 12 + values.nbytes, [values], [0], [GGUFValueType.ARRAY, GGUFValueType(item)]
        parts = []
        for _ in range(count):
            (size,) = struct.unpack_from("<Q", data, start)
            parts.append(data[start + 8 : start + 8 + size])
            start += 8 + size
        return start - orig_offs, parts, list(range(count)), [GGUFValueType.ARRAY, GGUFValueType.STRING]

    def metadata(self, prefixes: tuple[str, ...]) -> dict[str, Entry]:
        """The metadata whose keys start with one of the prefixes."""
        return {
            key: Entry(field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None)
            for key, field in self.fields.items()
            if key.startswith(prefixes)
        }


def tokenizer_of(path: Path) -> Tokenizer:
    """What `tiny.tokenizer_of` gives, in a fraction of the time."""
    return Reader(path).metadata(("tokenizer.",))


def assert_same_model(ours: Path, theirs: Path) -> None:
    """Tokenizer and hyperparameters are equal in value and type, tensors bit by bit."""
    our, their = Reader(ours), Reader(theirs)
    architecture = their.fields["general.architecture"].contents()
    _assert_same_metadata(our, their, (*_GENERAL, "tokenizer.", f"{architecture}."))
    _assert_same_tensors(our, their)


def assert_same_adapter(ours: Path, theirs: Path) -> None:
    """What llama.cpp reads of an adapter is equal in value and type, tensors bit by bit."""
    our, their = Reader(ours), Reader(theirs)
    _assert_same_metadata(our, their, ("general.architecture", "general.type", "general.quant", "adapter."))
    _assert_same_tensors(our, their)


def _assert_same_metadata(ours: Reader, theirs: Reader, prefixes: tuple[str, ...]) -> None:
    our, their = ours.metadata(prefixes), theirs.metadata(prefixes)
    assert set(our) == set(their), f"keys in one file only: {sorted(set(our) ^ set(their))}"
    for key, entry in their.items():
        if isinstance(entry.value, list) and isinstance(our[key].value, list):  # too long to be shown
            assert len(our[key].value) == len(entry.value), f"{key}: {len(our[key].value)}, {len(entry.value)} items"
            pairs = zip(our[key].value, entry.value, strict=True)
            different = [(i, *pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]]
            assert not different, f"{key}: {len(different)} items differ, (index, ours, theirs): {different[:5]}"
        else:
            assert our[key].value == entry.value, f"{key}: {our[key].value!r}, theirs is {entry.value!r}"
        assert our[key][1:] == entry[1:], f"{key}: {our[key][1:]}, theirs is {entry[1:]}"


def _assert_same_tensors(ours: Reader, theirs: Reader) -> None:
    our, their = ({tensor.name: tensor for tensor in reader.tensors} for reader in (ours, theirs))
    assert set(our) == set(their), f"tensors in one file only: {sorted(set(our) ^ set(their))}"
    for name, tensor in their.items():
        found, expected = ((t.tensor_type.name, t.shape.tolist()) for t in (our[name], tensor))
        assert found == expected, f"{name}: {found}, theirs is {expected}"
        same = np.array_equal(our[name].data.view(np.uint8), tensor.data.view(np.uint8))
        assert same, f"{name}: {_difference(our[name], tensor)}"


def _difference(ours: gguf.ReaderTensor, theirs: gguf.ReaderTensor) -> str:
    our, their = (gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in (ours, theirs))
    apart = np.abs(our - their)
    return f"{np.count_nonzero(apart)} of {apart.size} values differ, by up to {apart.max()}"
