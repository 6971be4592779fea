"""The assistant's server on a thread of its own, with a real engine behind it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sgft_edge.server import connection
from sgft_edge.server.app import application
from sgft_edge.server.work import Limits
from sgft_edge.solver import Solver

PATIENCE = 30.0


class Assistant:
    """A server that runs, and plain requests to it."""

    def __init__(self, port: int, solver: Solver) -> None:
        self.port, self.solver = port, solver
        self.url = f"http://127.0.0.1:{port}"

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON (or bytes) of a reply; a `body` that is bytes goes as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, raw, {"Content-Type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            content = reply.read()
            named = {name.lower(): value for name, value in reply.getheaders()}
            is_json = named.get("content-type", "").startswith("application/json")
            return reply.status, named, json.loads(content) if is_json else content
        finally:
            connection.close()

    def chat(self, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", "/v1/chat/completions", body, headers)

    def begin(self, body: Any) -> socket.socket:
        """Send a request and leave the reply unread."""
        raw = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        return client

    def under_way(self) -> int:
        """Requests that are worked on or wait."""
        state = self.request("GET", "/health")[2]
        return int(state["running"] + state["waiting"])

    def all_free(self) -> bool:
        return all(engine.free == engine.slots for engine in self.solver.cast.engines)


@contextmanager
def assistant(
    model: Path | str, limits: Limits | None = None, adapter: str = "none", name: str = "tiny", **guarded: Any
) -> Iterator[Assistant]:
    """Serve a model under a name, until the block ends."""
    limits = limits or Limits(slots=3)
    solver = Solver.open(model, adapter=adapter, threads=1, context=1024, parallel=limits.slots)
    listening = socket.create_server(("127.0.0.1", 0))
    server = connection.server(application({name: solver}, limits, **guarded), limits, log_level="error", grace=1)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Assistant(listening.getsockname()[1], solver)
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
