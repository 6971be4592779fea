"""What no client should send: broken HTTP and bodies that are hard to read, drawn from a seeded Random."""

from __future__ import annotations

import json
from random import Random

from sgft_edge.server.fields import CHAT

PATH = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


def head(*lines: str, method: str = "POST", path: str = PATH) -> bytes:
    """A request's head, without its last empty line's body."""
    first = (f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*first, *lines, "", "")).encode("latin-1")


def whole(body: bytes) -> bytes:
    """A request with a body of the length that it says."""
    return head(f"Content-Length: {len(body)}", "Connection: close") + body


def _noise(random: Random, most: int = 3000) -> bytes:
    return random.randbytes(random.randrange(1, most))


def _value(random: Random) -> str:
    """A JSON value, as text, that may be hard to hold."""
    depth = random.choice([random.randrange(50, 1200), random.randrange(1200, 100_000), 100_000])
    return random.choice(
        [
            "[" * depth + "]" * depth,
            '{"a":' * depth + "1" + "}" * depth,
            *(
                "1e999",
                "-1e999",
                "1" * 1_000_000,
                "9" * 4299,
                "-" + "9" * 30,
                "1e308",
                "-0",
                "1E400",
                "NaN",
                "Infinity",
            ),
            *('"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"a\\u0000b"', '"\\uffff"', '"' + "x" * 300_000 + '"'),
            *("[" + "0," * 200_000 + "0]", '{"":{"":{"":null}}}', "[[]]", "{}", "null", "true", '""', "[1e999,2]"),
            json.dumps([json.loads(random.choice(['"\\u0000"', "1e308", "[]", "{}"]))] * random.randrange(20)),
        ]
    )


def body(random: Random) -> bytes:
    """A body that may be no JSON, no Unicode, or no request."""
    draw = random.randrange(8)
    if draw == 0:
        return _noise(random)
    if draw == 1:
        raw = bytearray(json.dumps(HELLO).encode())
        for _ in range(random.randrange(1, 5)):
            raw[random.randrange(len(raw))] = random.randrange(256)
        return bytes(raw)
    if draw == 2:
        return json.dumps(HELLO).encode(random.choice(["utf-16", "utf-32", "utf-8-sig", "utf-16-be"]))
    if draw == 3:
        return json.dumps(HELLO).encode()[: random.randrange(60)]
    if draw == 4:
        return _value(random).encode()
    name = random.choice(sorted(CHAT))
    hello = json.dumps(HELLO)[1:-1]
    if draw == 5:  # a key twice: the last one counts
        return f'{{{hello}, "{name}": {_value(random)}, "{name}": {_value(random)}}}'.encode()
    if draw == 6:
        content = f'{{"role": "user", "content": {_value(random)}}}'
        return f'{{"max_tokens": 2, "messages": [{content}]}}'.encode()
    return f'{{{hello}, "{name}": {_value(random)}}}'.encode()


def wire(random: Random) -> bytes:
    """Bytes that may be no HTTP."""
    whole_body = json.dumps(HELLO).encode()
    length = len(whole_body)
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in whole_body)
    return random.choice(
        [
            lambda: _noise(random),
            lambda: b"\r\n" * random.randrange(1, 3000),
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + _noise(random),  # a client that speaks TLS
            lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _noise(random),
            lambda: random.choice([b"GET", b"get /", b"GET  / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]),
            lambda: b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            lambda: b"GET /" + b"x" * random.randrange(200_000) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            lambda: head(method="GET", path=f"/web/{random.choice(['%00', '%ff', '..%2f..%2fwire.py', 'a' * 5000])}"),
            lambda: head(method="GET", path=f"/v1/models/{random.choice(['%00', '%ff%fe', '%', '%zz', '//', '..'])}"),
            lambda: head(method=random.choice(["TRACE", "CONNECT", "X", "PATCH", "HEAD", "OPTIONS"])),
            lambda: head(*[f"X-{n}: {n}" for n in range(random.randrange(20_000))]),
            lambda: head(f"X: {'y' * random.randrange(1_000_000)}"),
            lambda: head("X: a\x00b"),
            lambda: head("Upgrade: websocket", "Connection: Upgrade", method="GET", path="/health"),
            lambda: head("Expect: 100-continue", f"Content-Length: {length}") + whole_body,
            lambda: head(f"Content-Length: {length + random.randrange(1, 2000)}") + whole_body,
            lambda: head(f"Content-Length: {length - random.randrange(1, 40)}") + whole_body,
            lambda: head(f"Content-Length: {random.choice(['-1', '1e3', '9' * 400, 'x', '+5', '0x10'])}") + whole_body,
            lambda: head("Content-Length: 3", "Content-Length: 4") + whole_body,
            lambda: head(f"Content-Length: {length}", "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n",
            lambda: head("Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n",
            lambda: head("Transfer-Encoding: chunked") + chunks[: random.randrange(len(chunks))],
            lambda: head("Transfer-Encoding: chunked") + b"f" * random.randrange(1, 40) + b"\r\n" + _noise(random),
            lambda: head("Transfer-Encoding: chunked") + b"-1\r\n\r\n",
            lambda: (
                head("Transfer-Encoding: chunked") + b"1;" + b"x" * random.randrange(100_000) + b"\r\na\r\n0\r\n\r\n"
            ),
            lambda: head("Transfer-Encoding: gzip, chunked") + chunks,
            lambda: whole(whole_body) + _noise(random),  # what comes behind a reply that is under way
            lambda: head(method="GET", path="/health") * random.randrange(1, 50) + _noise(random),
            # an error before the body, and then no body
            lambda: head("Transfer-Encoding: chunked").replace(b"application/json", b"text/plain") + _noise(random),
        ]
    )()
