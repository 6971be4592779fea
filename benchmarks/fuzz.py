"""Feed what reads text from outside with mutated real texts: it may refuse them, but not fail otherwise or hang.

usage: PYTHONPATH=tests/support python -m benchmarks.fuzz [--seconds 30] [--seed 0] [--only NAME,...] [--atheris]

Any exception but `SgftError` and those that are documented is a find, and so is more than a second of processor time
for one text of at most 20,000 bytes. With --atheris the mutations follow coverage (https://github.com/google/atheris,
pip install atheris), one target at a time, and the first find ends it. Exit status 1 where there are finds.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import click

from sgft_edge.errors import SgftError

if "--atheris" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["sgft_edge"]):
        from benchmarks.targets import Target, targets
else:
    from benchmarks.targets import Target, targets

MOST_BYTES = 20_000
MOST_SECONDS = 1.0
_GIVE_UP = 10.0
_MARKS = "()[]{}<>\"'\\/|*+-=,.:;%#$&!?_^~` \n\t0123456789eE½²³٣四−×÷…’“\u200b\ufeff\0\r"


class TooLong(BaseException):
    """A text took more than `_GIVE_UP` seconds of processor time."""


@dataclass
class Finds:
    """What a target did: exceptions by where they were raised, the slowest text, and how many texts there were."""

    texts: int = 0
    slowest: float = 0.0
    slow: list[tuple[float, bytes]] = field(default_factory=list)
    uncaught: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.uncaught or self.slow)


def feed(target: Target, given: bytes, finds: Finds) -> None:
    """Let a target read a text and note what comes of it."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, _GIVE_UP)
    try:
        target.read(given)
    except (SgftError, *target.documented):
        pass
    except (Exception, TooLong) as e:  # noqa: BLE001 - all others are finds
        place = traceback.extract_tb(e.__traceback__)[-1]
        if not isinstance(e, TooLong):
            where = f"{type(e).__name__} in {Path(place.filename).name}:{place.lineno}"
            finds.uncaught.setdefault(where, (str(e)[:100], given))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    took = time.process_time() - began
    finds.texts += 1
    finds.slowest = max(finds.slowest, took)
    if took > MOST_SECONDS:
        finds.slow.append((took, given))


class Mutator:
    """Texts made of others by a few changes each."""

    def __init__(self, seeds: tuple[bytes, ...], words: tuple[str, ...], seed: str) -> None:
        self._seeds, self._draw = seeds, random.Random(seed)
        self._words = [word.encode() for word in words]
        self._changes: tuple[Callable[[bytes], bytes], ...] = (
            self._cut, self._repeat, self._insert, self._insert, self._splice, self._replace, self._flip, self._nest,
        )  # fmt: skip

    def text(self) -> bytes:
        text = self._draw.choice(self._seeds)
        for _ in range(self._draw.choice((1, 1, 2, 3, 5, 8))):
            text = self._draw.choice(self._changes)(text)
        return text[:MOST_BYTES]

    def _span(self, text: bytes, most: int = 40) -> tuple[int, int]:
        start = self._draw.randint(0, len(text))
        return start, min(len(text), start + self._draw.randint(0, most))

    def _cut(self, text: bytes) -> bytes:
        start, end = self._span(text, self._draw.choice((3, 40, 10_000)))
        return text[:start] + text[end:]

    def _repeat(self, text: bytes) -> bytes:
        start, end = self._span(text, self._draw.choice((1, 3, 12)))
        return text[:end] + text[start:end] * self._draw.choice((1, 3, 60, 2_000, 20_000)) + text[end:]

    def _insert(self, text: bytes) -> bytes:
        start, _ = self._span(text)
        marks = [char.encode() for char in self._draw.choices(_MARKS, k=self._draw.randint(1, 3))]
        word = self._draw.choice(self._words) if self._words and self._draw.random() < 0.6 else b"".join(marks)
        return text[:start] + word + text[start:]

    def _splice(self, text: bytes) -> bytes:
        other = self._draw.choice(self._seeds)
        return text[: self._span(text)[0]] + other[self._span(other)[0] :]

    def _replace(self, text: bytes) -> bytes:
        start, end = self._span(text, 4)
        return text[:start] + self._draw.choice(_MARKS).encode() + text[end:]

    def _flip(self, text: bytes) -> bytes:
        start, _ = self._span(text)
        return text[:start] + bytes([self._draw.randrange(256)]) + text[start + 1 :]

    def _nest(self, text: bytes) -> bytes:
        opening, closing = self._draw.choice(
            ((b"(", b")"), (b"[", b"]"), (b'{"a":', b"}"), (b"-", b""), (b"\\frac{", b"}"))
        )
        start, end = self._span(text, 200)
        depth = self._draw.choice((1, 5, 60, 1_500))
        return text[:start] + opening * depth + text[start:end] + closing * depth + text[end:]


def fuzz(target: Target, seconds: float, seed: str, most: int | None = None) -> Finds:
    """Feed a target for so many seconds, or with at most so many texts: the same ones for the same seed."""
    finds, mutator = Finds(), Mutator(target.seeds, target.words, seed)
    end = time.monotonic() + seconds
    for given in target.seeds:
        feed(target, given[:MOST_BYTES], finds)
    while time.monotonic() < end and (most is None or finds.texts < most):
        feed(target, mutator.text(), finds)
    return finds


def _give_up(number: int, frame: FrameType | None) -> None:
    raise TooLong


def _follow_coverage(target: Target, seconds: float, seed: int, folder: Path) -> None:
    """Let atheris feed a target; it ends this process."""
    finds = Finds()
    (folder / "corpus").mkdir()
    for number, given in enumerate(target.seeds):
        (folder / "corpus" / str(number)).write_bytes(given)

    def once(given: bytes) -> None:
        feed(target, given, finds)
        if finds:
            raise RuntimeError(f"{finds.uncaught or finds.slow}")

    options = [f"-max_total_time={seconds:.0f}", f"-seed={seed + 1}", f"-max_len={MOST_BYTES}", "-verbosity=1"]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], once)
    atheris.Fuzz()


@click.command()
@click.option("--seconds", default=30.0, show_default=True, help="For each target.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", metavar="NAME,...")
@click.option("--atheris", "covers", is_flag=True, help="Follow coverage; takes one target.")
def main(seconds: float, seed: int, only: str, covers: bool) -> None:
    """Print for each target how many texts it read, how long the slowest took, and the finds."""
    signal.signal(signal.SIGVTALRM, _give_up)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        known = targets(Path(name))
        if unknown := {*filter(None, only.split(","))} - known.keys():
            raise click.UsageError(f"--only: expected some of {', '.join(known)}, found {min(unknown)}")
        for label, target in known.items():
            if only and label not in only.split(","):
                continue
            if covers:
                _follow_coverage(target, seconds, seed, Path(name))
            finds = fuzz(target, seconds, f"{seed} {label}")
            print(f"{label}: {finds.texts} texts, slowest {finds.slowest:.3f} s; ", end="")
            print(f"uncaught: {len(finds.uncaught)}, slow: {len(finds.slow)}")
            for where, (said, given) in finds.uncaught.items():
                print(f"   {where}: {said!r} of {given[:200]!r}")
            for took, given in finds.slow[:3]:
                print(f"   {took:.1f} s for {len(given)} bytes: {given[:100]!r} ... {given[-60:]!r}")
            sys.stdout.flush()
            failed = failed or bool(finds)
    sys.exit(failed)


if __name__ == "__main__":
    main()
