"""`sgft-edge serve`: an OpenAI-compatible server on this machine, and a page to ask in a browser."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgft_edge.errors import InputError, SgftError
from sgft_edge.reasoning.settings import Settings
from sgft_edge.solving.endpoint import is_endpoint
from sgft_edge.store.places import entry_for
from sgft_edge.terminal import words
from sgft_edge.terminal.options import guide_of, model_options, open_solver, read_text, with_model
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark

if TYPE_CHECKING:
    from sgft_edge.solver import Solver

KEY_VARIABLE = "SGFT_EDGE_API_KEY"
_PORTS, _COUNTS = click.IntRange(0, 65535), click.IntRange(1)
_SECONDS = words.number(0, 365 * 24 * 3600, above=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("serve", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Others need an API key.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, metavar="N", help="0 takes a free one."
)
@click.option(
    "--also",
    type=words.models,
    multiple=True,
    metavar="MODEL",
    help="Another one, in both roles; repeatable.",
)
@click.option(
    "--parallel",
    type=_COUNTS,
    default=8,
    show_default=True,
    metavar="N",
    help="Requests worked on at once.",
)
@click.option("--queue", type=click.IntRange(0), default=32, show_default=True, metavar="N", help="Requests that wait.")
@click.option(
    "--timeout",
    type=_SECONDS,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest request.",
)
@click.option("--max-tokens", type=_COUNTS, default=2048, show_default=True, metavar="N", help="Longest free answer.")
@click.option(
    "--max-body", type=_COUNTS, default=1_000_000, show_default=True, metavar="BYTES", help="Largest request."
)
@click.option("--api-key-file", type=words.path, help=f"The key; or set {KEY_VARIABLE}.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name by which clients reach this server.")
@click.option("--cors", multiple=True, metavar="ORIGIN", help="A site whose pages may ask, such as https://my.site.")
@model_options
def command(host: str, port: int, also: tuple[str, ...], **given: Any) -> None:
    """Serve models to a browser and to OpenAI clients, offline.

    The page is at http://127.0.0.1:8080/, the interface under /v1. A model's name may carry a strategy, as in
    smollm2:exact.
    """
    key = _key(given["api_key_file"])
    if key is None and not _is_loopback(host):
        raise InputError(f"host: expected an API key to serve {host}: give --api-key-file or set {KEY_VARIABLE}")
    try:
        from sgft_edge.server.app import application
        from sgft_edge.server.connection import server
        from sgft_edge.server.guard import host_name, site
        from sgft_edge.server.work import Limits
    except ImportError as e:
        raise SgftError("serving needs starlette, uvicorn and llguidance: pip install 'sgft-edge[serve]'") from e
    limits = Limits(
        slots=given["parallel"],
        queue=given["queue"],
        seconds=given["timeout"],
        body=given["max_body"],
        max_tokens=given["max_tokens"],
        votes=given["parallel"],
    )
    hosts, origins = tuple(map(host_name, given["allow_host"])), tuple(map(site, given["cors"]))
    listening = _listen(host, port)
    with listening:
        solvers = _solvers(given, also)
        app = application(solvers, limits, key=key, hosts=hosts, origins=origins)
        place = f"[{host}]" if ":" in host else host
        names, port = ", ".join(solvers), listening.getsockname()[1]
        remark(f"Serving {names} at http://{place}:{port}/ (Ctrl-C stops it)")
        server(app, limits).run(sockets=[listening])


def _solvers(given: dict[str, Any], also: tuple[str, ...]) -> dict[str, Solver]:
    """A solver for each model by its name."""
    guide = guide_of(given)
    first = open_solver({**given, "guide": guide}, Settings(), given["parallel"])
    solvers = {_name(guide): first}
    try:
        for model in also:
            solvers[_name(model)] = open_solver(with_model(given, model), Settings(), given["parallel"], first)
        for solver in solvers.values():
            with suppress(InputError):  # so that endpoints are asked what they can do before anybody waits
                solver.require("exact", stepwise=True)
    except BaseException:
        first.close()
        raise
    return solvers


def _name(model: str) -> str:
    if is_endpoint(model):
        return model.partition("#")[2]
    entry = entry_for(model)
    return entry.name if entry is not None else Path(model).stem


def _listen(host: str, port: int) -> socket.socket:
    """The socket that is served. Raises `InputError` for what is no address here, `SgftError` for one that is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wrong = f"host: expected an address or a name of this machine, found {host[:80]!r}"
    try:
        if not host.strip():  # which means every address
            raise InputError(wrong)
        socket.getaddrinfo(host, port, family)
    except (OSError, ValueError) as e:  # a name that DNS cannot have is a UnicodeError
        raise InputError(wrong) from e
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as e:
        if e.errno == errno.EADDRNOTAVAIL:
            raise InputError(wrong) from e
        raise SgftError(f"cannot listen at {host}:{port}: {e}: choose another --host or --port") from e


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key(file: Path | None) -> str | None:
    """The API key from a file or the environment. Raises `InputError` for one that no header can carry."""
    key = read_text(file, "API key").strip() if file is not None else os.environ.get(KEY_VARIABLE)
    if key is not None and not (key.isascii() and key.isprintable() and key and " " not in key):
        raise InputError("API key: expected printable ASCII without spaces, found something else: write another")
    return key


if __name__ == "__main__":
    sys.exit(main())
