"""The endpoints."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from sgft_edge import __version__
from sgft_edge.host.machine import MB, peak_bytes, resident_bytes
from sgft_edge.reasoning.settings import STRATEGIES
from sgft_edge.reasoning.solution import Event
from sgft_edge.server import wire
from sgft_edge.server.failure import unforeseen
from sgft_edge.server.guard import Guard, host_name, site
from sgft_edge.server.metrics import CONTENT_TYPE, Counting
from sgft_edge.server.openapi import description
from sgft_edge.server.wire import ApiError, Chunks
from sgft_edge.server.work import Desk, Limits, Work
from sgft_edge.solver import Solver

WEB = Path(__file__).parent / "web"
_GONE = 499  # nginx's status for a client that closed its connection; nobody reads it


class Endpoints:
    """What the routes call."""

    def __init__(self, desk: Desk, keyed: bool) -> None:
        self._desk = desk
        self._keyed = keyed

    async def models(self, _: Request) -> Response:
        """Each model with its strategies, and each of those as a model of its own: `NAME:STRATEGY`."""
        return JSONResponse({"object": "list", "data": list(self._models().values())})

    async def model(self, request: Request) -> Response:
        """One of them."""
        models, name = self._models(), request.path_params["name"]
        if name not in models:
            raise ApiError(
                404, f"model: expected one of those at /v1/models, found {name[:80]!r}", "model", "model_not_found"
            )
        return JSONResponse(models[name])

    def _models(self) -> dict[str, dict[str, Any]]:
        strategies = [strategy for strategy in STRATEGIES if strategy != "complete"]
        model = {"object": "model", "created": 0, "owned_by": "sgft-edge"}
        named = {name: {"id": name, **model, "strategies": strategies} for name in self._desk.solvers}
        variants = [f"{name}:{strategy}" for name in named for strategy in strategies]
        return named | {name: {"id": name, **model} for name in variants if name not in named}

    async def health(self, _: Request) -> Response:
        """How much is going on, and the process's memory in MB of 10**6 bytes."""
        desk, resident = self._desk, resident_bytes()
        state = {
            "status": "ok",
            "version": __version__,
            "running": desk.running,
            "waiting": desk.waiting,
            "slots": desk.limits.slots,
            "memory_mb": None if resident is None else round(resident / MB, 1),
            "peak_mb": round(peak_bytes() / MB, 1),
            "device": next(iter(desk.solvers.values())).cast.device,
        }
        return JSONResponse(state)

    async def metrics(self, _: Request) -> Response:
        """Counts and states for Prometheus."""
        desk = self._desk
        gauges = {
            "requests_running": ("Requests that are worked on.", desk.running),
            "requests_waiting": ("Requests in the queue.", desk.waiting),
            "memory_bytes": ("Resident memory of the process.", resident_bytes()),
            "peak_memory_bytes": ("The most that it was.", peak_bytes()),
        }
        return Response(desk.metrics.text(gauges), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, _: Request) -> Response:
        """What this server takes and gives."""
        return JSONResponse(description(self._desk.limits.votes, self._keyed))

    async def chat(self, request: Request) -> Response:
        return await self._complete(request, chat=True)

    async def complete(self, request: Request) -> Response:
        return await self._complete(request, chat=False)

    async def refuse(self, _: Request, error: Exception) -> Response:
        """An error in OpenAI's form."""
        headers: dict[str, str] = {}
        if isinstance(error, HTTPException):
            headers |= error.headers or {}  # Allow, of a method that is not allowed
            error = ApiError(error.status_code, str(error.detail))
        assert isinstance(error, ApiError)
        if error.status == 429:
            headers["retry-after"] = str(self._desk.retry_after)
        return JSONResponse(error.body, error.status, headers)

    async def _complete(self, request: Request, chat: bool) -> Response:
        limits, models = self._desk.limits, self._desk.solvers
        try:
            body = await _json_object(request, limits)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        asked = await asyncio.to_thread(wire.asked, body, chat, models, limits.max_tokens, limits.votes)
        work = self._desk.begin(asked)
        try:
            event = await _unless_gone(_first(work) if asked.stream else _last(work), request.receive)
        except BaseException:
            work.close()
            raise
        if event is None or not asked.stream:
            work.close()
        if event is None:
            return Response(status_code=_GONE)
        if asked.stream:
            return EventStream(work, event)
        assert event.solution is not None
        return JSONResponse(wire.reply(asked, event.solution))


class Ending:
    """Ends what is still at work when the server ends, which cancels it, without a traceback on the terminal."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            return


class EventStream(Response):
    """Server-sent events of some work, whose first event is known; it is closed once the client has gone."""

    def __init__(self, work: Work, first: Event) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"})
        self._work = work
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._lines()) as lines:
                async for line in lines:
                    await send({"type": "http.response.body", "body": f"{line}\n\n".encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        try:
            await _unless_gone(write(), receive)
        finally:
            self._work.close()

    async def _lines(self) -> AsyncGenerator[str]:
        asked = self._work.asked
        chunks = Chunks(asked)
        event: Event | None = self._first
        try:
            while event is None or event.solution is None:
                yield ": still at work" if event is None else _data(chunks.of(event))
                event = await self._work.next()
            yield _data(chunks.of(event))
            if asked.include_usage:
                yield _data(chunks.usage(event.solution))
        except Exception as e:  # noqa: BLE001 - the status is sent: an error can only be an event
            yield _data((e if isinstance(e, ApiError) else unforeseen(e)).body)
        yield "data: [DONE]"


def application(
    solvers: Mapping[str, Solver],
    limits: Limits | None = None,
    *,
    key: str | None = None,
    hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
) -> Starlette:
    """The ASGI application for solvers by the names of their models; it closes them when it ends.

    With a `key`, requests under /v1 and for /metrics must bring it. `hosts` are names in a Host header beside localhost
    and addresses; `origins` those of other sites whose pages may ask.
    """
    desk = Desk(solvers, limits or Limits())
    endpoints = Endpoints(desk, keyed=key is not None)
    allowed = tuple(map(site, origins))

    async def page(_: Request) -> Response:
        return FileResponse(WEB / "index.html")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(desk.close)

    middleware = [
        Middleware(Ending),
        Middleware(Counting, metrics=desk.metrics),
        Middleware(Guard, key=key, hosts=tuple(map(host_name, hosts)), origins=allowed),
    ]
    if allowed:
        methods = ["GET", "POST"]
        middleware.append(Middleware(CORSMiddleware, allow_origins=allowed, allow_methods=methods, allow_headers=["*"]))
    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.complete, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{name:path}", endpoints.model),
            Route("/health", endpoints.health),
            Route("/openapi.json", endpoints.openapi),
            Route("/metrics", endpoints.metrics),
            Route("/", page),
            Mount("/web", StaticFiles(directory=WEB)),
        ],
        middleware=middleware,
        exception_handlers={ApiError: endpoints.refuse, HTTPException: endpoints.refuse},
        lifespan=lifespan,
    )


async def _first(work: Work) -> Event:
    """The first event: an error that comes before it has a status of its own."""
    await work.start()
    while (event := await work.next()) is None:
        pass
    return event


async def _last(work: Work) -> Event:
    """The event with the solution."""
    await work.start()
    while (event := await work.next()) is None or event.solution is None:
        pass
    return event


async def _unless_gone(work: Awaitable[Any], receive: Receive) -> Any:
    """What the work returns, or raises; None where the client goes away before it is done."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _json_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object that a request brings. Raises `ApiError`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Content-Type: expected application/json")
    raw = bytearray()
    try:
        async with asyncio.timeout(limits.patience):
            async for part in request.stream():
                raw += part
                if len(raw) > limits.body:
                    raise ApiError(413, f"the body: expected at most {limits.body} bytes, found more")
    except TimeoutError:
        raise ApiError(408, "the body did not arrive in time") from None
    try:
        value = json.loads(raw, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        raise ApiError(400, "the body: expected Unicode text, found half of a surrogate pair") from e
    except (ValueError, RecursionError) as e:
        raise ApiError(400, f"the body: expected JSON, found something else ({e})") from e
    if not isinstance(value, dict):
        raise ApiError(400, "the body: expected a JSON object, found another value")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is larger than any number here")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _data(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}"
