"""A server under clients that misbehave: no crash, no stuck sequence, no growth.

usage: python -m benchmarks.soak MODEL [--minutes 10] [--clients 8] [--threads N]

Clients ask, go away in the middle of a stream and before its first byte, send bodies that are malformed, too large,
cut off or of the wrong type, and prompts that no context holds. Exit status 1 where a reply is not what it must be,
where a place is still taken when all have gone, where memory grew by more than 5 % after the first minute, or where the
server is left with more files or threads than before, but for those that asyncio keeps for work that waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import click

from benchmarks.clients import memory_mb, our_server

_JSON = "application/json"
_IDLE = 7  # seconds, more than a connection is kept for its next request
_POOL = min(32, (os.cpu_count() or 1) + 4)  # threads that asyncio keeps for work that waits


class Client:
    """One client's requests, over connections of its own."""

    def __init__(self, url: str, seed: int) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "", parts.port or 80)
        self._random = random.Random(seed)

    async def act(self) -> tuple[str, bool]:
        """Do something; returns what it was, and whether the reply was right."""
        draw = self._random.random()
        if draw < 0.35:
            return "asked", await self._status(self._body()) in (200, 429)
        if draw < 0.5:
            return "streamed", (await self._talk(self._body(stream=True))).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        if draw < 0.65:
            return "left a stream", await self._leave(self._body(stream=True), self._random.random())
        if draw < 0.75:
            return "left before a reply", await self._leave(self._body(), 0)
        if draw < 0.8:
            return "malformed", await self._status(b'{"messages": [}') == 400
        if draw < 0.85:
            return "of the wrong type", await self._status(json.dumps({"messages": 3}).encode()) == 400
        if draw < 0.9:
            return "cut off", await self._leave(self._body(), 0, missing=10)
        if draw < 0.95:
            return "too large", await self._status(b'"' + b"x" * 1_100_000) in (413, 0)
        long = self._body(text="How many are 3 and 4? " * 3000)
        return "longer than the context", await self._status(long) in (400, 429)

    def _body(self, stream: bool = False, text: str = "") -> bytes:
        numbers = " ".join(str(self._random.randrange(1000)) for _ in range(self._random.randrange(2, 60)))
        body = {
            "messages": [{"role": "user", "content": text or f"How much is the sum of {numbers}?"}],
            "strategy": self._random.choice(["chat", "cot", "sg", "exact", "direct"]),
            "max_tokens": self._random.randrange(1, 60),
            "temperature": self._random.choice([0, 0.8]),
            "seed": self._random.randrange(2**32),
            "reproducible": self._random.random() < 0.3,
            "stream": stream,
        }
        return json.dumps(body).encode()

    async def _status(self, body: bytes) -> int:
        """The status of the reply, 0 where the server closed the connection first."""
        words = (await self._talk(body))[:12].split()
        return int(words[1]) if len(words) > 1 else 0

    async def _talk(self, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._place)
        try:
            writer.write(self._head(len(body)) + body)
            await writer.drain()
            reply = await reader.read(-1)
            return reply if b" 429 " not in reply[:16] else reply + b"data: [DONE]\n\n\r\n0\r\n\r\n"
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def _leave(self, body: bytes, seconds: float, missing: int = 0) -> bool:
        reader, writer = await asyncio.open_connection(*self._place)
        writer.write(self._head(len(body)) + body[: len(body) - missing])
        await writer.drain()
        if seconds:
            await reader.read(200)
        await asyncio.sleep(seconds / 5)
        writer.transport.abort()
        return True

    async def get(self, path: str) -> bytes:
        """The reply to a GET, headers and all."""
        reader, writer = await asyncio.open_connection(*self._place)
        host, port = self._place
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        reply = await reader.read(-1)
        writer.close()
        return reply

    def _head(self, length: int) -> bytes:
        host, port = self._place
        lines = ("POST /v1/chat/completions HTTP/1.1", f"Host: {host}:{port}", f"Content-Type: {_JSON}")
        return "\r\n".join((*lines, f"Content-Length: {length}", "Connection: close", "", "")).encode()


def held(pid: int) -> tuple[int, int]:
    """Open files and threads of a process."""
    folder = Path(f"/proc/{pid}")
    return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


async def soak(url: str, pid: int, seconds: float, clients: int) -> bool:
    """Whether all went well; prints what happened."""
    await Client(url, 0).get("/health")  # the server has begun: its event loop has files of its own
    await asyncio.sleep(1)
    before = held(pid)
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    memory: list[float] = []
    end = time.monotonic() + seconds

    async def work(seed: int) -> None:
        client = Client(url, seed)
        while time.monotonic() < end:
            what, right = await client.act()
            counts[what] += 1
            wrong[what] += not right

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(min(60, seconds / 10))
            memory.append(await asyncio.to_thread(memory_mb, url))

    await asyncio.gather(watch(), *(work(seed) for seed in range(clients)))
    await asyncio.sleep(_IDLE)
    after = held(pid)
    state = json.loads((await Client(url, 0).get("/health")).partition(b"\r\n\r\n")[2])
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    print(f"wrong replies: {dict(+wrong) or 'none'}; requests still under way: {state['running'] + state['waiting']}")
    print(f"memory in MB: {', '.join(f'{mb:.0f}' for mb in memory)}: {memory[-1] / memory[0]:.3f}x")
    print(f"files before {before[0]}, after {after[0]}; threads before {before[1]}, after {after[1]}")
    empty = state["running"] == state["waiting"] == 0 and after[0] <= before[0] and after[1] <= before[1] + _POOL
    return not +wrong and empty and memory[-1] <= 1.05 * memory[0]


@click.command()
@click.argument("model")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--clients", default=8, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(model: str, minutes: float, clients: int, threads: int) -> None:
    """Print what happened."""
    with our_server(model, 4, threads) as url:
        pid = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text())
        sys.exit(not asyncio.run(soak(url, pid, 60 * minutes, clients)))


if __name__ == "__main__":
    main()
