"""The server, asked by OpenAI's client, by another client, and by those who mean no good."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from engines import Probe
from live import PATIENCE, Assistant, assistant, wait_until

from sgft_edge.errors import InputError
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.server.guard import host_name, site
from sgft_edge.server.wire import Chunks
from sgft_edge.server.work import Limits

NUMBERS = "How many are 3 and 4 in all?"
ASK = [{"role": "user", "content": NUMBERS}]
SECRET = "treasure"
HELLO = [{"role": "user", "content": "Hello"}]
PLAN = "1. Find the first number.\n2. Find all of them."
LONG = {"messages": HELLO, "strategy": "chat", "max_tokens": 900}


@pytest.fixture(scope="module")
def server(llama: Path) -> Iterator[Assistant]:
    with assistant(llama) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Assistant) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **body: Any) -> Any:
    """A reply, the same each time unless the body says otherwise."""
    ours = {name: body.pop(name) for name in ("strategy", "guidance", "choices", "votes", "plan") if name in body}
    return client.chat.completions.create(
        **{"model": "tiny", "messages": ASK, "max_tokens": 12, "seed": 0, "extra_body": ours, **body}
    )


def pieces(chunks: Any, name: str) -> str:
    return "".join(getattr(chunk.choices[0].delta, name, None) or "" for chunk in chunks if chunk.choices)


# ------------------------------------------------------------------------------------------------ OpenAI's client


@pytest.mark.parametrize("strategy", ["chat", "cot", "direct", "sg"])
def test_a_reply_is_what_the_solver_says(server: Assistant, client: openai.OpenAI, strategy: str) -> None:
    reply = ask(client, strategy=strategy)
    solution = server.solver.solve(NUMBERS, Settings(strategy, max_tokens=12, reproducible=True))
    choice = reply.choices[0]
    assert choice.message.content == solution.text
    assert choice.message.sgft["answer"] == solution.answer
    assert (choice.finish_reason == "length") == solution.truncated
    assert reply.usage.completion_tokens == solution.decoded
    used = solution.usage.values()
    assert reply.usage.prompt_tokens == sum(usage.prefilled + usage.reused for usage in used)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens_details.cached_tokens <= reply.usage.prompt_tokens


@pytest.mark.parametrize("strategy", ["chat", "sg", "exact", "program", "calc"])
def test_the_pieces_of_a_stream_are_the_reply(client: openai.OpenAI, strategy: str) -> None:
    body = {"strategy": strategy, **({"guidance": PLAN} if strategy == "exact" else {})}
    message = ask(client, **body).choices[0].message
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True}, **body)
    assert last.choices == []
    assert last.usage.completion_tokens > 0
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    solution = chunks[-1].choices[0]
    assert solution.finish_reason in ("stop", "length")
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    told = solution.delta.sgft
    assert told.pop("kind") == "solution"
    assert {**told, "seconds": 0} == {**message.sgft, "seconds": 0}
    assert pieces(chunks, "content").strip().endswith(message.content.strip())
    if strategy == "sg":
        assert pieces(chunks, "reasoning_content").strip()
        assert message.reasoning_content.startswith("1. ")
    if strategy == "exact":
        assert message.reasoning_content == PLAN
        assert pieces(chunks, "reasoning_content").startswith(PLAN)


def test_a_model_name_may_carry_the_strategy(client: openai.OpenAI) -> None:
    assert ask(client, model="tiny:cot").choices[0].message.sgft["strategy"] == "cot"
    assert ask(client, model="tiny:cot", strategy="direct").choices[0].message.sgft["strategy"] == "direct"
    names = {model.id for model in client.models.list()}
    assert {"tiny", "tiny:exact", "tiny:chat"} <= names


def test_the_strategy_fits_the_message(client: openai.OpenAI) -> None:
    assert ask(client, messages=HELLO).choices[0].message.sgft["strategy"] == "chat"
    assert ask(client).choices[0].message.sgft["strategy"] == "program"
    choices = {"A": "yes", "B": "no"}
    assert ask(client, messages=HELLO, choices=choices).choices[0].message.sgft["answer"] in choices


def test_a_calculation_costs_no_token(client: openai.OpenAI) -> None:
    asked = [*HELLO, {"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "What is 17 * 23?"}]
    reply = ask(client, messages=asked)
    assert reply.choices[0].message.content == "The answer is 391."
    told = reply.choices[0].message.sgft
    assert (told["solved_by"], told["answer"]) == ("arithmetic", "391")
    assert told["steps"] == [{"text": "17 * 23", "expression": "17 * 23", "value": "391"}]
    assert reply.usage.total_tokens == 0
    *chunks, last = ask(client, messages=asked, stream=True, stream_options={"include_usage": True})
    assert pieces(chunks, "content") == "The answer is 391."
    assert chunks[-1].choices[0].delta.sgft["solved_by"] == "arithmetic"
    assert last.usage.total_tokens == 0
    shape = {"type": "json_object"}
    for other in (
        {"strategy": "cot"},
        {"choices": {"A": "1", "B": "2"}},
        {"guidance": PLAN},
        {"response_format": shape},
    ):
        assert ask(client, messages=asked, **other).choices[0].message.sgft["solved_by"] != "arithmetic"
    told_how = [{"role": "system", "content": "You are a helpful assistant."}, *asked]
    assert ask(client, messages=told_how).choices[0].message.sgft["solved_by"] == "arithmetic"


def test_the_conversation_reaches_the_model(server: Assistant, client: openai.OpenAI) -> None:
    history = [{"role": "developer", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "Hi!"}]
    parts = [{"type": "text", "text": "And "}, {"type": "text", "text": "you?"}]
    reply = ask(client, messages=[*history, {"role": "user", "content": parts}], strategy="chat")
    told = (("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi!"))
    settings = Settings("chat", max_tokens=12, reproducible=True)
    expected = server.solver.solve(Question("And you?", history=told), settings)
    assert reply.choices[0].message.content == expected.text
    assert reply.usage.prompt_tokens > ask(client, messages=HELLO, strategy="chat").usage.prompt_tokens


def test_sampling_is_honoured(server: Assistant, client: openai.OpenAI) -> None:
    def written(**sampling: Any) -> str:
        return str(ask(client, strategy="chat", **sampling).choices[0].message.content)

    assert written(temperature=1, seed=5) == written(temperature=1, seed=5) != written(temperature=1, seed=6)
    own = Settings("chat", max_tokens=12, sampling=Sampling(1.0, 0.9, seed=5))
    assert written(temperature=1, seed=5, top_p=0.9) == server.solver.solve(NUMBERS, own).text
    free = written()
    stop = free[2:4]
    assert written(stop=stop) == free[: free.index(stop)]
    assert written(stop=[stop, "never written"]) == free[: free.index(stop)]


def test_text_completions(server: Assistant, client: openai.OpenAI) -> None:
    reply = client.completions.create(model="tiny", prompt="Once upon ", max_tokens=9, seed=0)
    solution = server.solver.solve("Once upon ", Settings("complete", max_tokens=9, reproducible=True))
    assert reply.choices[0].text == solution.text
    chunks = list(client.completions.create(model="tiny", prompt=["Once upon "], max_tokens=9, seed=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == solution.text
    assert chunks[-1].choices[0].finish_reason == reply.choices[0].finish_reason == "length"


SCHEMA = {
    "type": "object",
    "properties": {"many": {"type": "integer"}, "sure": {"type": "boolean"}},
    "required": ["many", "sure"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("strategy", ["chat", "cot", "sg"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_holds_the_final_content(client: openai.OpenAI, strategy: str, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}}
    found = ask(client, strategy=strategy, response_format=form, max_tokens=200, stream=stream)
    content = pieces(found, "content") if stream else found.choices[0].message.content
    value = json.loads(content)
    assert set(value) == {"many", "sure"}
    assert isinstance(value["many"], int)
    assert isinstance(value["sure"], bool)


def test_json_of_any_form(client: openai.OpenAI) -> None:
    reply = ask(client, strategy="chat", response_format={"type": "json_object"}, max_tokens=400, temperature=0.5)
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)
    assert reply.choices[0].message.content.startswith("{")


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("n", {"n": 2}),
        ("logprobs", {"logprobs": True}),
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("presence_penalty", {"presence_penalty": 1}),
        ("max_tokens", {"max_tokens": "many"}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 16.5}),
        ("stop", {"stop": ["x" * 201]}),
        ("temperature", {"temperature": -1}),
        ("temperature", {"temperature": True}),
        ("top_p", {"top_p": 3}),
        ("stop", {"stop": [3]}),
        ("stop", {"stop": [""]}),
        ("strategy", {"strategy": "nonsense"}),
        ("votes", {"votes": 99}),
        ("messages", {"messages": []}),
        ("messages", {"messages": [{"role": "user"}]}),
        ("messages", {"messages": ["Hello"]}),
        ("messages", {"messages": [{"role": "tool", "content": "x"}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}}),
        ("choices", {"choices": 3}),
        ("question", {"messages": [{"role": "user", "content": " "}]}),
    ],
)
def test_what_is_wrong_is_named(server: Assistant, param: str, body: dict[str, Any]) -> None:
    status, _, reply = server.chat({"model": "tiny", "messages": ASK, "max_tokens": 2, **body})
    assert status == 400
    assert reply["error"]["param"] == param
    assert reply["error"]["type"] == "invalid_request_error"
    assert reply["error"]["message"].startswith(f"{param}: ")
    assert "\n" not in reply["error"]["message"]


HOSTILE = {
    "a class that never closes": {"type": "string", "pattern": "^a}$", "maxLength": 0},
    "gigabytes": {"type": "string", "pattern": "^a{300000000}$"},
    "for ever": {"type": "integer", "multipleOf": 999983},
    "half a pair": {"enum": ["\ud800"]},
    "a circle": {"$ref": "#"},
    "what is not there": {"$ref": "file:///etc/passwd"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_refused(server: Assistant, name: str, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": HOSTILE[name]}}
    for strategy in ("chat", "sg"):
        body = {"messages": ASK, "strategy": strategy, "response_format": form, "stream": stream}
        status, _, reply = server.chat(body)
        assert (status, reply["error"]["type"]) == (400, "invalid_request_error")
        assert reply["error"]["param"] in ("response_format", None)
    assert server.under_way() == 0


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 65536},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 60000},
        {"type": "string", "pattern": "^\\d{4}-\\d{2}$"},
        {"type": "string", "pattern": "^a}$"},
    ],
)
def test_schemas_that_used_to_hurt_are_held(server: Assistant, schema: dict[str, Any]) -> None:
    for form in ({"json_schema": {"name": "x", "schema": schema}}, {"schema": schema}):
        form = {"type": "json_schema", **form}
        status, _, reply = server.chat({"messages": HELLO, "response_format": form, "max_tokens": 40})
        assert status == 200
        choice = reply["choices"][0]
        assert choice["finish_reason"] == "length" or json.loads(choice["message"]["content"]) is not None


def test_half_of_a_surrogate_pair_is_no_text(server: Assistant) -> None:
    raw = b'{"messages": [{"role": "user", "content": "a \\ud800 b"}]}'
    assert server.chat(raw)[0] == 400


@pytest.mark.parametrize("limit", [4096, 16.0, -1])
def test_a_limit_on_tokens_is_an_upper_bound(server: Assistant, limit: float) -> None:
    status, _, reply = server.chat({"messages": HELLO, "max_tokens": limit, "strategy": "chat"})
    assert status == 200
    written = reply["usage"]["completion_tokens"]
    assert written <= 16 if limit == 16 else written > 500
    if reply["choices"][0]["finish_reason"] == "length" and limit != 16:
        assert reply["usage"]["total_tokens"] >= 1024


def test_names_with_colons(llama: Path) -> None:
    with assistant(llama, name="llama3.2:3b") as server:
        for asked, strategy in (("llama3.2:3b", "chat"), ("llama3.2:3b:cot", "cot")):
            status, _, reply = server.chat({"model": asked, "messages": HELLO, "max_tokens": 2})
            assert (status, reply["model"]) == (200, "llama3.2:3b")
            assert reply["choices"][0]["message"]["sgft"]["strategy"] == strategy
            assert server.request("GET", f"/v1/models/{asked}")[2]["id"] == asked
        assert server.chat({"model": "llama3.2", "messages": HELLO})[0] == 404
        status, _, reply = server.request("GET", "/v1/models/other")
        assert (status, reply["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_nobody_foresaw(
    server: Assistant, stream: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"about the {SECRET}")

    monkeypatch.setattr(Chunks, "of", fail)
    monkeypatch.setattr("sgft_edge.server.wire.reply", fail)
    status, _, reply = server.chat({"messages": HELLO, "max_tokens": 2, "stream": stream})
    if stream:
        *_, raw, end = reply.decode().strip().split("\n\n")
        reply = json.loads(raw.removeprefix("data: "))
        assert end == "data: [DONE]"
    assert status == (200 if stream else 500)
    error = reply["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert error["id"] in error["message"]
    assert error["id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text + json.dumps(reply)
    wait_until(lambda: server.under_way() == 0)


def test_errors_are_the_clients_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="expected one of tiny"):
        ask(client, model="other")
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=[{"role": "user", "content": "word " * 3000}], strategy="chat")
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        ask(client, messages=[{"role": "user", "content": "word " * 3000}], strategy="chat", stream=True)


def test_unknown_fields_are_ignored(server: Assistant) -> None:
    body = {"messages": HELLO, "max_tokens": 2, "store": True, "reasoning_effort": "low", "user": "x", "stop": None}
    assert server.chat(body)[0] == 200


def test_another_client(server: Assistant) -> None:
    from huggingface_hub import InferenceClient

    other = InferenceClient(base_url=f"{server.url}/v1", api_key="none")
    reply = other.chat_completion(HELLO, model="tiny", max_tokens=8, seed=0)
    streamed = other.chat_completion(HELLO, model="tiny", max_tokens=8, seed=0, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == reply.choices[0].message.content


# --------------------------------------------------------------------------------------------- many, and vanishing


def test_clients_share_decode_calls(server: Assistant, client: openai.OpenAI) -> None:
    probe = Probe(server.solver.cast.answerer.engine)  # type: ignore[arg-type]
    threads = [
        threading.Thread(target=ask, args=(client,), kwargs={"strategy": "cot", "max_tokens": 80, "seed": None})
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert probe.most_sequences == 3


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_frees_a_place_at_once(server: Assistant, stream: bool) -> None:
    clients = [server.begin({**LONG, "stream": stream}) for _ in range(5)]  # two of them wait
    wait_until(lambda: server.under_way() == 5)
    if stream:
        assert clients[0].recv(1)
    for client in clients:
        client.close()
    wait_until(lambda: server.under_way() == 0)
    wait_until(server.all_free)
    assert server.chat({"messages": HELLO, "max_tokens": 2})[0] == 200


def test_a_full_queue_says_when_to_come_again(llama: Path) -> None:
    with assistant(llama, Limits(slots=1, queue=1)) as server:
        clients = [server.begin(LONG) for _ in range(2)]
        wait_until(lambda: server.under_way() == 2)
        status, headers, reply = server.chat({"messages": HELLO})
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        assert reply["error"]["code"] == "queue_full"
        for client in clients:
            client.close()
        wait_until(lambda: server.under_way() == 0)
        assert server.chat({"messages": HELLO, "max_tokens": 2})[0] == 200


def test_what_takes_too_long_is_ended(llama: Path) -> None:
    with assistant(llama, Limits(slots=1, seconds=0.05)) as server:
        status, _, reply = server.chat(LONG)
        assert (status, reply["error"]["code"]) == (504, "timeout")
        status, _, lines = server.chat({**LONG, "stream": True})
        assert status == 200
        *_, error, end = lines.decode().strip().split("\n\n")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"
        assert end == "data: [DONE]"
        wait_until(server.all_free)


def test_limits_of_a_request(llama: Path) -> None:
    with assistant(llama, Limits(slots=1, body=2000, max_tokens=5)) as server:
        assert server.chat({"messages": HELLO, "x": "y" * 3000})[0] == 413
        reply = server.chat({"messages": HELLO, "max_tokens": 800})[2]
        assert reply["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff\xfe", 400),
        (b'{"messages": 3}', 400),
        (b"[" * 100_000, 400),
        (b'{"model": {}, "messages": [{"role": "user", "content": "a"}]}', 400),
    ],
)
def test_bodies_that_are_no_request(server: Assistant, body: bytes, status: int) -> None:
    found, _, reply = server.chat(body)
    assert found == status
    assert reply["error"]["type"] == "invalid_request_error"


def test_other_paths_and_methods(server: Assistant) -> None:
    assert server.request("GET", "/v1/nothing")[0] == 404
    status, _, reply = server.request("GET", "/v1/chat/completions")
    assert (status, reply["error"]["message"]) == (405, "Method Not Allowed")
    assert server.request("GET", "/web/../wire.py")[0] == 404


# ------------------------------------------------------------------------------------------------------- who may ask


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:80", "[::1"])
def test_foreign_hosts_are_refused(server: Assistant, host: str) -> None:
    assert server.request("GET", "/v1/models", headers={"Host": host})[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "192.168.0.7"])
def test_known_hosts_are_let_in(server: Assistant, host: str) -> None:
    assert server.request("GET", "/v1/models", headers={"Host": host})[0] == 200


def test_a_client_without_a_host(server: Assistant) -> None:
    for path, status in (("/health", b"200"), ("/v1/models", b"200"), ("/nothing", b"404")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert client.recv(100).split()[1] == status


@pytest.mark.parametrize("given", ["*", "http://box", "a b", "box/x", "", "*.box", "user@box"])
def test_what_is_no_host(given: str) -> None:
    with pytest.raises(InputError, match="--allow-host: expected a name"):
        host_name(given)


@pytest.mark.parametrize(
    "given", ["*", "null", "my.site", "https://my.site/page", "ftp://my.site", "https://", "https://a:b"]
)
def test_what_is_no_site(given: str) -> None:
    with pytest.raises(InputError, match="--cors: expected a site"):
        site(given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("HTTPS://My.Site:443/", "https://my.site"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_a_site_as_browsers_write_it(given: str, meant: str) -> None:
    assert site(given) == meant


def test_foreign_pages_are_refused(server: Assistant) -> None:
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        assert server.chat({"messages": HELLO}, Origin=origin)[0] == 403
    assert server.chat({"messages": HELLO, "max_tokens": 1}, Origin=server.url)[0] == 200
    status, _, _ = server.request("POST", "/v1/chat/completions", {"messages": HELLO}, {"Content-Type": "text/plain"})
    assert status == 415
    assert "access-control-allow-origin" not in server.request("GET", "/v1/models")[1]


def test_a_site_that_was_allowed(llama: Path) -> None:
    with assistant(llama, origins=("https://My.site:443/",), hosts=("Box.local.",), key="secret") as server:
        preflight = {"Origin": "https://my.site", "Access-Control-Request-Method": "POST"}
        asked = {**preflight, "Access-Control-Request-Headers": "authorization,content-type"}
        status, headers, _ = server.request("OPTIONS", "/v1/chat/completions", headers=asked)
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://my.site"
        body = {"messages": HELLO, "max_tokens": 1}
        status, headers, _ = server.chat(body, Origin="https://my.site", Authorization="Bearer secret")
        assert (status, headers["access-control-allow-origin"]) == (200, "https://my.site")
        assert server.chat(body, Origin="https://evil.example", Authorization="Bearer secret")[0] == 403
        assert server.request("GET", "/health", headers={"Host": "box.local:80"})[0] == 200


def test_the_key(llama: Path) -> None:
    with assistant(llama, key="secret") as server:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"Authorization": "Bearer "}):
            status, _, reply = server.request("GET", "/v1/models", headers=wrong)
            assert (status, reply["error"]["code"]) == (401, "invalid_api_key")
        assert server.request("GET", "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
        assert server.request("GET", "/health")[0] == 200
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nothing", "/v1/chat/completions"])
def test_every_reply_forbids_what_the_page_does_not_need(server: Assistant, path: str) -> None:
    for host in ("localhost", "evil.example"):
        headers = server.request("GET", path, headers={"Host": host})[1]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert headers["x-content-type-options"] == "nosniff"


# ------------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def command(llama: Path) -> list[str]:
    serve = [sys.executable, "-m", "sgft_edge.cli", "serve", "--guide", str(llama), "--adapter", "none"]
    return [*serve, "--port", "0", "--threads", "1", "--context", "2048"]


class Running:
    def __init__(self, command: list[str], **env: str) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
        )
        assert self.process.stderr is not None
        self.line = self.process.stderr.readline()
        self.port = int(self.line.split(":")[-1].split("/")[0])

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self, how: signal.Signals) -> str:
        """End it by a signal; what it wrote besides its first line."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=PATIENCE)
        return out + err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_the_middle_of_a_stream(command: list[str], how: signal.Signals) -> None:
    with Running(command) as running:
        server = Assistant(running.port, None)  # type: ignore[arg-type]
        with server.begin({**LONG, "max_tokens": 1900, "stream": True}) as client:
            assert client.recv(1)
            written = running.end(how)
    assert "Traceback" not in written
    assert running.process.returncode in (0, 130, -how)


def test_it_says_nothing_of_what_it_is_asked(command: list[str], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("open-sesame\n")
    with Running([*command, "--api-key-file", str(key)]) as running:
        server = Assistant(running.port, None)  # type: ignore[arg-type]
        allowed = {"Authorization": "Bearer open-sesame"}
        secret = [{"role": "user", "content": "the treasure is under the oak"}]
        assert server.chat({"messages": secret, "max_tokens": 4}, **allowed)[0] == 200
        assert server.chat({"messages": secret, "max_tokens": -4}, **allowed)[0] == 400
        assert server.chat({"messages": secret}, Authorization="Bearer close-sesame")[0] == 401
        written = running.line + running.end(signal.SIGTERM)
    assert "sesame" not in written
    assert "treasure" not in written


def test_two_models_in_one_thread(command: list[str], tiny_files: Path) -> None:
    other = tiny_files / "qwen2.gguf"
    with Running([*command, "--also", str(other)]) as running:
        assert "Serving llama, qwen2 at http://127.0.0.1:" in running.line
        server = Assistant(running.port, None)  # type: ignore[arg-type]
        replies = [server.chat({"model": name, "messages": HELLO, "max_tokens": 8})[2] for name in ("llama", "qwen2")]
        assert len({reply["choices"][0]["message"]["content"] for reply in replies}) == 2
        threads = Path(f"/proc/{running.process.pid}/task").iterdir()
        names = [(task / "comm").read_text().strip() for task in threads]
        assert sum(name.startswith("sgft-edge-engin") for name in names) <= 1


def fails(command: list[str], status: int, **env: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **env})
    assert done.returncode == status, done.stderr
    return done.stderr


def test_what_cannot_be_served(command: list[str], tmp_path: Path) -> None:
    assert "expected an API key to serve 0.0.0.0" in fails([*command, "--host", "0.0.0.0"], 2)
    assert "99999 is not in the range" in fails([*command, "--port", "99999"], 2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another --host or --port" in fails([*command, "--port", str(taken.getsockname()[1])], 1)
    assert "API key: cannot read" in fails([*command, "--api-key-file", str(tmp_path / "none")], 2)
    assert "expected printable ASCII" in fails([*command], 2, SGFT_EDGE_API_KEY="two words")
    assert "0 is not in the range" in fails([*command, "--parallel", "0"], 2)
    assert "--cors: expected a site" in fails([*command, "--cors", "*"], 2)
    assert "--allow-host: expected a name" in fails([*command, "--allow-host", "http://box"], 2)
    assert "no model file at" in fails([*command, "--also", "nowhere.gguf"], 1)


def test_other_addresses_are_served_with_a_key(command: list[str]) -> None:
    with Running([*command, "--host", "0.0.0.0"], SGFT_EDGE_API_KEY="secret") as running:
        server = Assistant(running.port, None)  # type: ignore[arg-type]
        assert server.request("GET", "/v1/models")[0] == 401
        assert server.request("GET", "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
