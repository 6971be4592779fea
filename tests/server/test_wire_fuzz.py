"""The wire under what no client should send: the server stays right, quick and empty."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import nonsense
import pytest
from live import Assistant, assistant, wait_until

from sgft_edge.server.connection import MOST
from sgft_edge.server.work import Limits

pytestmark = pytest.mark.slow

SEED = 20_241_206
BODIES = 400
WIRES = 400
PATIENCE = 3.0
ASK = {"messages": [{"role": "user", "content": "Say something"}], "max_tokens": 8, "seed": 1}


class Watched:
    """A server, and what it held before anybody meant harm."""

    def __init__(self, server: Assistant) -> None:
        self.server = server
        self.reply = self._asked()
        form = {"type": "json_schema", "schema": {"type": "object"}}
        assert server.chat({**ASK, "response_format": form})[0] == 200  # which begins a thread that stays
        time.sleep(0.5)  # until the connections are closed on either side
        self.files, self.threads = held()

    def _asked(self) -> str:
        status, _, reply = self.server.chat(ASK)
        assert status == 200
        return str(reply["choices"][0]["message"]["content"])

    def is_right_and_empty(self) -> None:
        began = time.monotonic()
        assert self.server.request("GET", "/health")[0] == 200
        assert time.monotonic() - began < 1
        assert self._asked() == self.reply
        body = {"messages": [{"role": "user", "content": "What is 17 * 23?"}]}
        assert self.server.chat(body)[2]["choices"][0]["message"]["content"] == "The answer is 391."
        wait_until(lambda: self.server.under_way() == 0)
        wait_until(self.server.all_free)
        end = time.monotonic() + PATIENCE
        while held()[0] > self.files and time.monotonic() < end:
            time.sleep(0.01)
        files, threads = held()
        assert files <= self.files
        assert threads <= self.threads


def held() -> tuple[int, set[str]]:
    """Open files, and threads besides those that asyncio and anyio keep for a while."""
    names = {thread.name for thread in threading.enumerate() if not thread.name.startswith(("asyncio_", "AnyIO "))}
    return len(os.listdir("/proc/self/fd")), names


@pytest.fixture(scope="module")
def served(llama: Path) -> Iterator[Watched]:
    with assistant(llama, Limits(slots=3, max_tokens=8, patience=PATIENCE)) as server:
        yield Watched(server)


@pytest.fixture
def watched(served: Watched, caplog: pytest.LogCaptureFixture) -> Iterator[Watched]:
    yield served
    served.is_right_and_empty()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def connected(watched: Watched) -> socket.socket:
    return socket.create_connection(("127.0.0.1", watched.server.port), timeout=4 * PATIENCE)


def all_of(client: socket.socket) -> bytes:
    """What comes until the server closes the connection. Raises `TimeoutError` where it does not."""
    found = b""
    with suppress(ConnectionError):
        while part := client.recv(65536):
            found += part
    return found


def sent(client: socket.socket, data: bytes) -> None:
    with suppress(ConnectionError):
        client.sendall(data)


def test_bodies_that_are_hard_to_read(watched: Watched) -> None:
    random = Random(SEED)
    statuses: Counter[int] = Counter()
    for number in range(BODIES):
        body = nonsense.body(random)
        status, _, reply = watched.server.chat(body)
        statuses[status] += 1
        assert status in (200, 400, 404, 413), (number, body[:200], reply)
        assert status == 200 or reply["error"]["type"] == "invalid_request_error"
    print(f"bodies: {dict(statuses)}")


def test_bytes_that_are_no_request(watched: Watched) -> None:
    random = Random(SEED)
    statuses: Counter[str] = Counter()
    with ExitStack() as stack:
        left = []
        for _ in range(WIRES):
            data = nonsense.wire(random)
            client = stack.enter_context(connected(watched))
            sent(client, data)
            how = random.randrange(4)
            if how == 0:  # gone, with or without a word
                client.close()
            elif how == 1:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
                left.append((data, client))
            else:
                left.append((data, client))
        for data, client in left:
            reply = all_of(client)
            status = reply.split(b" ", 2)[1].decode() if reply else "none"
            statuses[status] += 1
            assert status in ("none", "100", "200", "400", "403", "404", "405", "408", "413", "415", "429"), (
                data[:200],
                reply,
            )
    print(f"wires: {dict(statuses)}")


DRIPS = {
    "nothing": b"",
    "a head": b"GET /health HTTP/1.1\r\nX: " + b"y" * 1000,
    "a body": nonsense.head("Content-Length: 1000") + b" " * 1000,
    "chunks": nonsense.head("Transfer-Encoding: chunked") + b"1\r\n \r\n" * 1000,
    "a body after its error": nonsense.head("Content-Length: 1000").replace(b"application/json", b"text/plain")
    + b" " * 900,
    "the second head": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nX: " + b"y" * 1000,
}


@pytest.mark.parametrize("name", DRIPS)
def test_what_drips_is_dropped(watched: Watched, name: str) -> None:
    whole, at_once = DRIPS[name], DRIPS[name].rfind(b"\r\n\r\n") + 4
    began = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(watched)) for _ in range(20)]
        for client in clients:
            client.sendall(whole[:at_once])
            client.setblocking(False)
        rest, waiting = iter(whole[at_once:]), set(clients)
        while waiting:
            byte = bytes([next(rest)]) if whole else b""
            for client in list(waiting):
                try:
                    client.send(byte)
                    while client.recv(65536):
                        pass
                    waiting.discard(client)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    waiting.discard(client)
            assert time.monotonic() - began < 2 * PATIENCE + 1, f"{len(waiting)} are still held"
            time.sleep(0.05)
    assert name == "a head" or time.monotonic() - began > PATIENCE / 2


def test_who_takes_no_reply_is_dropped(watched: Watched) -> None:
    ask = b"GET /web/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = json.dumps({**ASK, "stream": True}).encode()
    stream = nonsense.head(f"Content-Length: {len(body)}") + body
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(2)]  # each fills megabytes of the kernel first
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", watched.server.port))
            client.setblocking(False)
            with suppress(BlockingIOError):
                for _ in range(20):
                    client.send(ask * 50 + stream)
            wait_until(lambda: held()[0] >= watched.files + 2 * len(clients))  # both ends of each
            wait_until(lambda: held()[0] <= watched.files + len(clients))  # the clients' ends alone


def test_requests_in_a_row_are_answered_in_order(watched: Watched) -> None:
    questions = [f"What is {n} * 3?" for n in range(1, 21)]
    bodies = [json.dumps({"messages": [{"role": "user", "content": question}]}).encode() for question in questions]
    requests = [nonsense.head(f"Content-Length: {len(body)}") + body for body in bodies]
    with connected(watched) as client:
        client.sendall(b"".join(requests))
        found = all_of(client).decode()  # the server closes what is idle
    places = [found.index(f"The answer is {3 * n}.") for n in range(1, 21)]
    assert places == sorted(places)


@pytest.mark.parametrize("many", [300, MOST + 100])
def test_idle_connections(watched: Watched, many: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(watched)) for _ in range(many)]
        began = time.monotonic()
        status, _, state = watched.server.request("GET", "/health")
        assert (status, state["status"]) == (200, "ok")
        assert time.monotonic() - began < 1
        assert watched.server.chat(ASK)[2]["choices"][0]["message"]["content"] == watched.reply
        for client in clients:
            assert all_of(client) == b""


def test_clients_that_vanish(watched: Watched) -> None:
    random = Random(SEED)

    def vanish(stream: bool, seconds: float) -> None:
        client: Any = watched.server.begin({**ASK, "stream": stream, "strategy": "cot"})
        time.sleep(seconds)
        client.close()

    for _ in range(10):
        threads = [threading.Thread(target=vanish, args=(n % 2 == 0, random.random() / 5)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
