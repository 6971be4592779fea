"""What a server has done, in Prometheus's text format; numbers alone, nothing of what was asked.

https://prometheus.io/docs/instrumenting/exposition_formats/. Written out here, since it is all that we need of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/openapi.json", "/metrics", "/")


class Metrics:
    """Counts since the server began. Paths are those of routes, so that no client can make more of them."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._first: Counter[int] = Counter()
        self._seconds = 0.0

    def replied(self, path: str, status: int) -> None:
        """A request that began to be answered."""
        self._requests[path, status] += 1

    def began(self, seconds: float) -> None:
        """The first text of an answer, so long after its request."""
        self._first[bisect_left(_SECONDS, seconds)] += 1
        self._seconds += seconds

    def used(self, prefilled: int, decoded: int, reused: int) -> None:
        """The tokens of an answer."""
        self._tokens.update(read=prefilled, decoded=decoded, reused=reused)

    def text(self, gauges: Mapping[str, tuple[str, float | None]]) -> str:
        """The exposition; `gauges` are states by name, each with its help and its value, None where it is not known."""
        return "\n".join((*self._lines(gauges), ""))

    def _lines(self, gauges: Mapping[str, tuple[str, float | None]]) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests by route and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'sgft_edge_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("tokens_total", "counter", "Tokens of answers: read, decoded, or reused from a KV cache.")
        for kind in ("read", "decoded", "reused"):
            yield f'sgft_edge_tokens_total{{kind="{kind}"}} {self._tokens[kind]}'
        yield from _head("first_token_seconds", "histogram", "Seconds from a request to the first text of its answer.")
        count = 0
        for place, bound in enumerate((*(f"{seconds:g}" for seconds in _SECONDS), "+Inf")):
            count += self._first[place]
            yield f'sgft_edge_first_token_seconds_bucket{{le="{bound}"}} {count}'
        yield f"sgft_edge_first_token_seconds_sum {self._seconds:.6f}"
        yield f"sgft_edge_first_token_seconds_count {count}"
        for name, (told, value) in gauges.items():
            if value is not None:
                yield from _head(name, "gauge", told)
                yield f"sgft_edge_{name} {value}"


def _head(name: str, kind: str, told: str) -> tuple[str, str]:
    return f"# HELP sgft_edge_{name} {told}", f"# TYPE sgft_edge_{name} {kind}"


class Counting:
    """ASGI middleware that counts replies by path, all paths that nothing stands at under one name."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.replied(_named(scope["path"]), message["status"])
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)


def _named(path: str) -> str:
    for folder, name in (("/v1/models/", "/v1/models/{name}"), ("/web/", "/web/{path}")):
        if path.startswith(folder):
            return name
    return path if path in _PATHS else "other"
