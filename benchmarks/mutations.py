"""Damaged model files and adapters, opened through the product's own path: none may end its process, or hang it.

usage: python -m benchmarks.mutations [--models 300] [--adapters 300] [--seed 0] [--keep FOLDER]

Mutants are made of the tests' tiny models and adapters: bytes of the header, counts and lengths, types, names doubled,
tables of tensors, truncations, splices of two files, vocabulary entries that are equal. Trials of many run in one
process each time, `Solver.open` then opens each file in another and asks a question. Exit status 1 where that process
crashed, hung (60 s), showed a traceback or more than one line, or took more than 1 GB.
"""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from sgft_edge.errors import SgftError
from sgft_edge.store.header import Header, read_header

HANG_S = 60
MOST_MB = 1000
_BATCH = 40  # files of one process; the sound ones among them stay mapped no longer than they are open

Mutate = Callable[[bytearray, random.Random, bytes, Header], bytes]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file, how it was damaged, and the model that it is opened on if it is an adapter."""

    kind: str
    path: str
    base: str | None


def header_bytes(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(header.data_start)] = rng.randrange(256)
    return data


def header_bits(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    for _ in range(rng.choice((1, 1, 4))):
        data[rng.randrange(header.data_start)] ^= 1 << rng.randrange(8)
    return data


def counts(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """Version, number of tensors, or number of keys."""
    at, size = rng.choice(((4, 4), (8, 8), (16, 8)))
    now = int.from_bytes(data[at : at + size], "little")
    values = (0, 1, now - 1, now + 1, now * 2, 2 ** (8 * size) - 1, 1 << (8 * size - 1), 1 << 20)
    data[at : at + size] = rng.choice(values).to_bytes(size, "little")
    return data


def values(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """A number of the metadata, or a length, which is what is 0 in its upper bytes, becomes another."""
    places = [at for key in header.metadata if (at := data.find(key.encode())) > 0]
    at = rng.choice(places)
    at += data[at:].find(b"\0") if rng.random() < 0.3 else int.from_bytes(data[at - 8 : at], "little")
    size = rng.choice((1, 4, 8))
    odd = (0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.randrange(2**20))
    data[at + 4 : at + 4 + size] = (rng.choice(odd) % (1 << (8 * size))).to_bytes(size, "little")
    return data


def types(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """The type of a value, or of a tensor."""
    if rng.random() < 0.5:
        key = rng.choice(list(header.metadata)).encode()
        at = data.find(key) + len(key)
        data[at] = rng.randrange(14)
    else:
        tensor = rng.choice(header.tensors)
        at = data.find(tensor.name.encode(), 24) + len(tensor.name) + 4 + 8 * len(tensor.shape)
        data[at] = rng.randrange(42)
    return data


def doubled_names(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """A tensor or a key gets the name of another of the same length."""
    names = [tensor.name for tensor in header.tensors] + list(header.metadata)
    pairs = [(one, two) for one in names for two in names if one != two and len(one) == len(two)]
    one, two = rng.choice(pairs)
    return data.replace(one.encode(), two.encode(), 1)


def tensor_table(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """Dimensions, a shape or an offset of a tensor."""
    tensor = rng.choice(header.tensors)
    at = data.find(tensor.name.encode(), 24) + len(tensor.name)
    where = rng.randrange(len(tensor.shape) + 2)
    if where == 0:
        data[at : at + 4] = rng.choice((0, 1, 2, 3, 4, 5, 2**31)).to_bytes(4, "little")
        return data
    at += 4 + 8 * (where - 1) + (4 if where > len(tensor.shape) else 0)
    now = int.from_bytes(data[at : at + 8], "little")
    odd = (0, 1, 32, now + 1, now + 32, now * 2, max(now - 32, 0), 2**31, 2**40, 2**63, 2**64 - 32)
    data[at : at + 8] = (rng.choice(odd) % (1 << 64)).to_bytes(8, "little")
    return data


def truncation(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    return data[: rng.randrange(header.data_start if rng.random() < 0.5 else len(data))]


def splice(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """The beginning of one file and the end of another."""
    at = rng.randrange(24, header.data_start if rng.random() < 0.7 else len(data))
    return data[:at] + other[at + rng.choice((0, 0, 1, -8, 32)) :]


def equal_entries(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """Two entries of the vocabulary become equal; an adapter has none, so two of its strings."""
    found = header.metadata.get("tokenizer.ggml.tokens")
    if found is None:
        return doubled_names(data, rng, other, header)
    start = data.find(found.raw)
    spans, at = [], start
    for _ in range(found.count or 0):
        size = int.from_bytes(data[at : at + 8], "little")
        spans.append((at + 8, size))
        at += 8 + size
    alike = [(one, two) for one in spans for two in rng.sample(spans, 20) if one[1] == two[1] and one != two]
    (one, size), (two, _) = rng.choice(alike)
    data[one : one + size] = data[two : two + size]
    return data


def weights(data: bytearray, rng: random.Random, other: bytes, header: Header) -> bytes:
    """Numbers that are none: infinities and NaN, in half precision."""
    for _ in range(rng.choice((1, 100))):
        at = rng.randrange(header.data_start, len(data) - 2) // 2 * 2
        data[at : at + 2] = rng.choice((b"\x00\x7c", b"\x00\xfc", b"\xff\x7f"))
    return data


KINDS: tuple[Mutate, ...] = (
    header_bytes,
    header_bits,
    counts,
    values,
    types,
    doubled_names,
    tensor_table,
    truncation,
    splice,
    equal_entries,
    weights,
)


def mutants(folder: Path, models: int, adapters: int, seed: int) -> list[Mutant]:
    """Write damaged files, each kind in turn; the same for the same seed."""
    from tests.support import tiny

    folder.mkdir(parents=True, exist_ok=True)
    sound = [tiny.tiny_model(folder / f"{arch}.gguf", arch) for arch in ("llama", "qwen2")]
    loras = [tiny.tiny_adapter(folder / f"lora{seed}.gguf", sound[0], seed=seed) for seed in (1, 2)]
    contents = {path: path.read_bytes() for path in (*sound, *loras)}
    headers = {path: read_header(path) for path in contents}
    made = []
    for group, count in ((sound, models), (loras, adapters)):
        for number in range(count):
            mutate, rng = KINDS[number % len(KINDS)], random.Random(f"{seed} {group[0].name} {number}")
            original, other = rng.sample(group, 2)
            data = mutate(bytearray(contents[original]), rng, contents[other], headers[original])
            path = folder / f"{group[0].stem}-{number:04}-{mutate.__name__}.gguf"
            path.write_bytes(data)
            made.append(Mutant(mutate.__name__, str(path), None if group is sound else str(sound[0])))
    return made


def worker() -> None:
    """Try what stdin names, then open each file and ask a question; writes what came of each, a line each."""
    from sgft_edge.host.machine import peak_bytes
    from sgft_edge.solver import Solver
    from sgft_edge.solving.strangers import try_ahead

    jobs = [Mutant(**job) for job in json.load(sys.stdin)]
    try_ahead([{Path(job.base or job.path): (Path(job.path),) if job.base else ()} for job in jobs])
    print(json.dumps(["tried", ""]), flush=True)
    for job in jobs:
        try:
            _ask(Solver, job)
            found = ["loaded", ""]
        except SgftError as e:
            found = ["refused" if "\n" not in str(e) else "more than a line", f"{type(e).__name__}: {e}"]
        except Exception as e:  # noqa: BLE001 - what a user would see as a traceback
            found = ["traceback", f"{type(e).__name__}: {e}"]
        print(json.dumps([*found, peak_bytes() // 1_000_000]), flush=True)


def _ask(solver: Any, job: Mutant) -> None:
    from sgft_edge.reasoning.settings import Settings

    adapter = job.path if job.base else "none"
    with solver.open(job.base or job.path, adapter=adapter, context=1024, threads=1) as opened:
        for strategy in ("exact", "direct"):
            opened.solve("A shop sells 5 bikes. What is left?", Settings(strategy, max_tokens=4))


def results(jobs: Sequence[Mutant], cache: Path) -> Iterator[tuple[Mutant, str, str, int]]:
    """What comes of each file: how it ended, the message, and the process's peak memory in MB."""
    left = list(jobs)
    while left:
        batch = left[:_BATCH]
        answered = 0
        for kind, said, peak in _worker_lines(batch, cache):
            yield batch[answered], kind, said, peak
            answered += 1
        left = left[answered:]


def _worker_lines(batch: Sequence[Mutant], cache: Path) -> Iterator[tuple[str, str, int]]:
    command = [sys.executable, "-m", "benchmarks.mutations", "--worker"]
    given = json.dumps([{"kind": job.kind, "path": job.path, "base": job.base} for job in batch])
    environment = {**os.environ, "SGFT_EDGE_CACHE": str(cache), "SGFT_EDGE_TRIAL": ""}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        assert process.stdin is not None
        assert process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        output = process.stdout
        reader = threading.Thread(target=_read, args=(output, lines), daemon=True)
        reader.start()
        process.stdin.write(given)
        process.stdin.close()
        patience = HANG_S * len(batch)  # of all trials; then of each file
        for number in range(-1, len(batch)):
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                process.kill()
                yield "hang", "", 0
                break
            if not line:
                errors.seek(0)
                yield "crash", f"status {process.wait()}: {errors.read()[-300:]}", 0
                break
            patience = HANG_S
            if number >= 0:
                kind, said, peak = json.loads(line)
                yield kind, said, peak
        process.wait()


def _read(output: Any, lines: queue.SimpleQueue[str]) -> None:
    for line in output:
        lines.put(line)
    lines.put("")


@click.command()
@click.option("--models", default=300, show_default=True)
@click.option("--adapters", default=300, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="The folder for the files.  [default: one that is deleted]"
)
@click.option("--worker", "is_worker", is_flag=True, hidden=True)
def command(models: int, adapters: int, seed: int, keep: Path | None, is_worker: bool) -> None:
    """Open damaged files; print how many of each kind were refused, loaded, or did harm."""
    if is_worker:
        worker()
        return
    with tempfile.TemporaryDirectory() as temporary:
        made = mutants(keep or Path(temporary) / "files", models, adapters, seed)
        began = time.perf_counter()
        found = list(results(made, Path(temporary) / "cache"))
        seconds = time.perf_counter() - began
    bad = _report(found)
    click.echo(f"{len(made)} files in {seconds:.0f} s, {len(made) / seconds:.1f} a second")
    if bad:
        raise SystemExit(1)


def _report(found: Sequence[tuple[Mutant, str, str, int]]) -> int:
    endings = ("refused", "loaded", "crash", "hang", "traceback", "more than a line")
    for what, adapters in (("models", False), ("adapters", True)):
        rows = [row for row in found if (row[0].base is not None) == adapters]
        count = Counter(ending for _, ending, _, _ in rows)
        died = sum("llama.cpp ended with" in said or "processor time" in said for _, _, said, _ in rows)
        said = ", ".join(f"{ending} {count[ending]}" for ending in endings)
        click.echo(f"{what}: {len(rows)}: {said}; of those refused, {died} ended the process of their trial")
        for kind in dict.fromkeys(row[0].kind for row in rows):
            of_kind = Counter(ending for job, ending, _, _ in rows if job.kind == kind)
            click.echo(f"  {kind:14} " + ", ".join(f"{ending} {of_kind[ending]}" for ending in endings[:2]))
    peak = max(peak for _, _, _, peak in found)
    click.echo(f"peak memory of the processes that opened them: {peak} MB")
    harm = [row for row in found if row[1] not in ("refused", "loaded")]
    for job, ending, said, _ in harm:
        click.echo(f"{ending}: {job.path}: {said}", err=True)
    return len(harm) + (peak > MOST_MB)


if __name__ == "__main__":
    command()
