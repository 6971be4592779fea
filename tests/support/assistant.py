"""A stand-in for the assistant's server: it serves the page, and answers with scripts instead of a model's words."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from servers import LocalServer, QuietHandler

from sgft_edge.server.guard import CONTENT_SECURITY_POLICY

WEB = Path(__file__).parents[2] / "sgft_edge" / "server" / "web"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
STRATEGIES = ["auto", "chat", "direct", "cot", "plan", "program", "sg", "exact", "guidance"]

BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
Event = dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A reply that is an error."""

    status: int
    message: str
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": "invalid_request_error", "param": None, "code": self.code}}


class Gate:
    """Where a script waits until a test opens it, or the client goes."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self.open = self._opened.set
        self.wait = self._opened.wait


class Cut:
    """Where a script ends without an end: the connection breaks off."""


Script = Sequence[Event | Gate | Refusal | Cut]


def event(kind: str, text: str) -> Event:
    return {"kind": kind, "text": text}


def pieces(kind: str, text: str, size: int = 7) -> list[Event]:
    """A text as it would be decoded, some characters at a time."""
    return [event(kind, text[i : i + size]) for i in range(0, len(text), size)]


def solution(answer: str | None = None, **more: Any) -> Event:
    """The event that comes last, as the server sends it."""
    usual = {"strategy": "exact", "solved_by": "exact", "why": "asked for", "seconds": 0.5, "truncated": False}
    empty: Event = {"notes": [], "guidance": [], "votes": {}, "steps": []}
    return {"kind": "solution", "answer": answer, **empty, **usual, **more}


def computed(*steps: tuple[str, str | None, str | None]) -> list[Event]:
    """The events of steps that are carried out: words, expression, value."""
    events = []
    for words, expression, value in steps:
        events.append(event("step", words))
        events += [event("expression", expression)] if expression is not None else []
        events += [event("value", value)] if value is not None else []
    return events


def exact(*steps: tuple[str, str, str]) -> list[Event]:
    """The script of an exact answer: guidance, steps, answer."""
    plan = "\n".join(f"{number}. {words}" for number, (words, _, _) in enumerate(steps, 1))
    named = [{"text": words, "expression": expression, "value": value} for words, expression, value in steps]
    value = steps[-1][2]
    last = solution(value, steps=named, guidance=[words for words, _, _ in steps])
    return [*pieces("guidance", plan), *computed(*steps), event("answer", f"The answer is {value}."), last]


def chat(text: str) -> list[Event]:
    """The script of a reply in words."""
    last = solution(None, strategy="chat", solved_by="chat", why="nothing is to be worked out")
    return [*pieces("answer", text), last]


BIKES_SOLVED = exact(
    ("Find the money from all bikes.", "5 * 120", "600"), ("Find what is left after the parts.", "600 - 75", "525")
)


class Assistant(LocalServer):
    """Answers each question with the next of `scripts`; a refusal among them with an error.

    `asked` holds the requests' bodies, `keys` the Authorization header of each. `left` is set once a client has gone
    before its answer was whole. While `gone`, nothing under the API gets a reply. With a `key`, /v1 wants it.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.scripts: deque[Script | Refusal] = deque()
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.unknown: list[str] = []
        self.left = threading.Event()
        self.gone = False
        self.key: str | None = None
        self.looks = 0
        self.models = {"smollm2": STRATEGIES, "qwen2.5-coder-0.5b": STRATEGIES}

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Those of the last request."""
        return [(message["role"], message["content"]) for message in self.asked[-1]["messages"]]


class _Handler(QuietHandler):
    server: Assistant

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/health", "/v1/models"):
            self._api(self._health if path == "/health" else self._models)
            return
        file = (WEB / ("index.html" if path == "/" else path.removeprefix("/web/"))).resolve()
        if (path != "/" and not path.startswith("/web/")) or WEB not in file.parents or not file.is_file():
            self.server.unknown.append(self.path)
            self._send(b"", "text/plain", 404)
            return
        self._send(file.read_bytes(), TYPES[file.suffix])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/chat/completions":
            self.server.unknown.append(self.path)
        else:
            self._api(lambda: self._answer(json.loads(body)))

    def _api(self, reply: Any) -> None:
        if self.server.gone:
            self.close_connection = True
            return
        given = self.headers["Authorization"]
        if self.server.key is not None and self.path.startswith("/v1/") and given != f"Bearer {self.server.key}":
            self._refuse(Refusal(401, "Authorization: expected Bearer and this server's key", "invalid_api_key"))
            return
        reply()

    def _models(self) -> None:
        data: list[dict[str, Any]] = []
        for name, strategies in self.server.models.items():
            model = {"object": "model", "created": 0, "owned_by": "sgft-edge"}
            data += [{"id": name, **model, "strategies": strategies}, {"id": f"{name}:exact", **model}]
        self._json({"object": "list", "data": data})

    def _health(self) -> None:
        self.server.looks += 1
        state = {"status": "ok", "version": "0.1.0", "running": 0, "waiting": 0, "slots": 8}
        self._json({**state, "memory_mb": 310.2, "peak_mb": 330.0, "device": "cpu"})

    def _answer(self, body: dict[str, Any]) -> None:
        self.server.asked.append(body)
        self.server.keys.append(self.headers["Authorization"])
        script = self.server.scripts.popleft()
        if isinstance(script, Refusal):
            self._refuse(script)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        try:
            for line in self._lines(script, body):
                self.wfile.write(f"{line}\n\n".encode())
        except OSError:
            self.server.left.set()

    def _lines(self, script: Script, body: dict[str, Any]) -> Iterator[str]:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        for part in script:
            if isinstance(part, Gate):
                while not part.wait(0.02):
                    yield ": still at work"
            elif isinstance(part, Refusal):
                yield f"data: {json.dumps(part.body)}"
                yield "data: [DONE]"
                return
            elif isinstance(part, Cut):
                return
            else:
                finish = "stop" if part["kind"] == "solution" else None
                delta = {"role": "assistant", "content": "for other clients", "sgft": part}
                chunk = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}"
        usage = {"prompt_tokens": 140, "completion_tokens": 26, "total_tokens": 166}
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}"
        yield "data: [DONE]"

    def _refuse(self, refusal: Refusal) -> None:
        self._json(refusal.body, refusal.status, refusal.headers)

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), "application/json", status, headers)

    def _send(self, content: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)
