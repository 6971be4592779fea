"""Who may ask, as ASGI middleware around the whole application.

A page of another site can send requests to 127.0.0.1, and by DNS rebinding (a name of its own that suddenly means
127.0.0.1) read the replies. So the Host must be an address or a name that we know, and an Origin, which browsers send
along, must be our own or one that was allowed. No browser leaves the Host out: clients of HTTP/1.0 do.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgft_edge.errors import InputError
from sgft_edge.server.failure import unforeseen
from sgft_edge.server.wire import ApiError

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"  # no text ever becomes HTML
)
_KEYED = ("/v1/", "/metrics")
_PORTS = {"http": 80, "https": 443}
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Guard:
    """Lets through what comes to a known host, from our own page or an allowed origin, and under `/v1` and
    `/metrics` with the key."""

    def __init__(self, app: ASGIApp, key: str | None, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        self._key = key.encode() if key is not None else None
        self._hosts = {"localhost", *hosts}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except ApiError as e:
            asks = {"www-authenticate": "Bearer"} if e.status == 401 else None
            await JSONResponse(e.body, e.status, asks)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as e:  # noqa: BLE001 - whoever asked must be told of any
            failure = unforeseen(e)
            if begun:
                raise failure from None
            await JSONResponse(failure.body, failure.status)(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host is not None and not self._is_known(host):
            raise ApiError(403, f"Host: expected an address or a name given with --allow-host, found {host[:80]!r}")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not _is_own(origin, host):
            raise ApiError(403, f"Origin: expected this server's own or one given with --cors, found {origin[:80]!r}")
        preflight = scope["method"] == "OPTIONS" and origin in self._origins
        if self._key is not None and scope["path"].startswith(_KEYED) and not preflight:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key):
                raise ApiError(401, "Authorization: expected Bearer and this server's key", code="invalid_api_key")

    def _is_known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            if name in self._hosts:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def host_name(given: str) -> str:
    """A name as a Host header has it, without a port: `MyBox.local:80` is `mybox.local`. Raises `InputError`."""
    try:
        address = given.strip()
        parts = urlsplit(f"//[{address}]" if address.count(":") > 1 and "[" not in address else f"//{address}")
        name = (parts.hostname or "").rstrip(".").encode("idna").decode()
        fits = parts.port is None or parts.port > 0
    except ValueError:  # UnicodeError is one
        name, fits = "", False
    if not fits or not re.fullmatch(r"[a-z0-9_.-]+|[0-9a-f:.]+", name) or parts.path or parts.query or parts.username:
        raise InputError(f"--allow-host: expected a name such as mybox.local, found {given[:80]!r}: name each host")
    return name


def site(given: str) -> str:
    """An origin as browsers write it: `HTTPS://My.Site:443/` is `https://my.site`. Raises `InputError`."""
    try:
        parts = urlsplit(given.strip())
        port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
        name = host_name(parts.hostname or "")
    except (ValueError, InputError):
        name = ""
    if not name or parts.scheme not in _PORTS or parts.path not in ("", "/") or parts.query or parts.username:
        raise InputError(
            f"--cors: expected a site such as https://my.site, found {given[:80]!r}: name each one, "
            "for any other page could read what this server answers"
        )
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}{port}"


def _is_own(origin: str, host: str | None) -> bool:
    """Whether a page of this server asks."""
    return host is not None and urlsplit(origin).netloc.lower() == host.lower()
