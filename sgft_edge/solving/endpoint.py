"""A chat model behind an OpenAI-compatible endpoint, in the place of an engine: `openai:URL#MODEL`.

vLLM, llama-server, Ollama and others take chats. Strategy `exact` also needs a grammar, and a last message that the
model goes on with. Two kinds of servers have both, and a probe finds out which one answers:

    llama-server   goes on with a last message of the assistant's, which it may say again; takes `grammar` (GBNF)
    vLLM           `continue_final_message`; takes `structured_outputs` (https://docs.vllm.ai)
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from sgft_edge.errors import EngineError, InputError, SgftError
from sgft_edge.reasoning.backend import Completion, Usage
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.schema import Form, JsonSchema
from sgft_edge.reasoning.settings import Sampling

PREFIX = "openai:"
_POLL = 0.005  # seconds that a step waits at most, so that engines beside it go on
_PROBE = 'root ::= "qz7"'  # no model writes this by itself

Options = dict[str, Any]


def _llama_server(grammar: str) -> Options:
    return {"grammar": grammar}


def _vllm(grammar: str) -> Options:
    return {"structured_outputs": {"grammar": grammar}}


_DIALECTS: tuple[tuple[Callable[[str], Options], Options], ...] = (
    (_llama_server, {}),
    (_vllm, {"continue_final_message": True, "add_generation_prompt": False}),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the endpoint wrote, whether it ran into its limit, and the tokens that it says it read and wrote."""

    text: str
    cut: bool
    tokens_in: int
    tokens_out: int


@dataclass(eq=False, slots=True)
class RemoteRequest:
    """A completion that the endpoint is asked for; `stop` is looked for here where a grammar holds the text."""

    turn: RemoteTurn
    body: Options
    stop: tuple[str, ...]
    on_text: Callable[[str], None] | None
    result: Completion | None = None
    error: Exception | None = None
    began: float = field(default_factory=time.perf_counter)

    @property
    def engine(self) -> Endpoint:
        return self.turn.role.engine

    def take(self, reply: Reply) -> None:
        """Note what the endpoint wrote."""
        cuts = [at for mark in self.stop if (at := reply.text.find(mark)) >= 0]
        text = reply.text[: min(cuts)] if cuts else reply.text
        if self.on_text is not None:
            self.on_text(text)
        usage = self.turn.usage
        usage.prefilled, usage.decoded = usage.prefilled + reply.tokens_in, usage.decoded + reply.tokens_out
        usage.calls += 1
        usage.seconds += time.perf_counter() - self.began
        self.turn.force(text)
        self.result = Completion(text, reply.tokens_out, "stop" if cuts else "length" if reply.cut else "end")


class Endpoint:
    """An endpoint with `slots` requests at once. Raises `InputError`, and `SgftError` without the package `openai`."""

    def __init__(self, name: str, slots: int = 1, timeout: float = 600.0) -> None:
        url, _, self.model = name.removeprefix(PREFIX).partition("#")
        if urlsplit(url).scheme not in ("http", "https") or not self.model:
            raise InputError(f"expected openai:URL#MODEL, such as openai:http://localhost:8080/v1#qwen, found {name!r}")
        try:
            import openai
        except ImportError as e:
            raise SgftError("endpoints need the package openai: pip install 'sgft-edge[endpoint]'") from e
        self.name, self.slots = name, slots
        self._taken = 0
        self._openai = openai
        try:
            self._client = openai.OpenAI(base_url=url, api_key=_key(), timeout=timeout, max_retries=4)
        except Exception as e:
            raise InputError(f"{name}: expected openai:URL#MODEL, found a URL that is none ({e})") from e
        self._under_way: set[RemoteRequest] = set()
        self._answered: queue.SimpleQueue[tuple[RemoteRequest, Reply | Exception]] = queue.SimpleQueue()
        self._dialect: tuple[Callable[[str], Options], Options] | None = None
        self._probed = False

    @property
    def free(self) -> int:
        return self.slots - self._taken

    @property
    def busy(self) -> bool:
        return bool(self._under_way)

    def acquire(self) -> RemoteSeat:
        self._taken += 1
        return RemoteSeat(self)

    def release(self, seat: RemoteSeat) -> None:
        self._taken -= 1
        self._under_way = {request for request in self._under_way if request.turn.seat is not seat}

    def submit(self, request: RemoteRequest) -> None:
        def work() -> None:
            try:
                outcome: Reply | Exception = self._complete(request.body)
            except Exception as e:  # noqa: BLE001 - whoever waits must be told of any
                outcome = e
            self._answered.put((request, outcome))

        self._under_way.add(request)
        threading.Thread(target=work, name="sgft-edge-endpoint", daemon=True).start()  # nobody waits for it to end

    def step(self) -> list[RemoteRequest]:
        """Wait a little for an answer; returns the request that ended."""
        try:
            request, outcome = self._answered.get(timeout=_POLL)
        except queue.Empty:
            return []
        if request not in self._under_way:
            return []
        self._under_way.remove(request)
        if isinstance(outcome, Exception):
            request.error = outcome
        else:
            request.take(outcome)
        return [request]

    def close(self) -> None:
        self._client.close()

    def require_grammar(self) -> None:
        """Find out, once, how the endpoint is told a grammar. Raises `InputError` where it takes none."""
        if self._dialect is None and not self._probed:
            self._probe()
        if self._dialect is None:
            found = "expected an endpoint that takes a grammar, found none"
            raise InputError(f"{self.name}: {found}: use strategy sg with it")

    def _probe(self) -> None:
        begun = ({"role": "user", "content": "Say a word."}, {"role": "assistant", "content": "The word is"})
        for grammar, going_on in _DIALECTS:
            try:
                reply = self._complete({"messages": begun, "max_tokens": 8, "extra_body": grammar(_PROBE) | going_on})
            except InputError:
                continue
            if reply.text.strip() == "qz7":
                self._dialect = grammar, going_on
                break
        self._probed = True

    def body(
        self,
        messages: Sequence[tuple[str, str]],
        begun: str,
        max_tokens: int,
        stop: tuple[str, ...],
        grammar: Form | None,
        sampling: Sampling,
    ) -> Options:
        """What a request says; what the endpoint cannot be told is left out."""
        extra: dict[str, Any] = {}
        told = [{"role": role, "content": content} for role, content in messages]
        if self._dialect is not None:
            as_option, going_on = self._dialect
            if begun:
                told.append({"role": "assistant", "content": begun})
                extra |= going_on
            if isinstance(grammar, str):
                extra |= as_option(grammar)
        options: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        options["seed"] = sampling.first_draw
        if sampling.min_p:
            extra["min_p"] = sampling.min_p
        if isinstance(grammar, JsonSchema):
            held = {"name": "answer", "schema": json.loads(grammar.text)}
            options["response_format"] = {"type": "json_schema", "json_schema": held}
        if stop and grammar is None:
            options["stop"] = list(stop)
        return {"messages": told, "max_tokens": max_tokens, "extra_body": extra, **options}

    def _complete(self, body: Options) -> Reply:
        """One request. Raises `InputError` where it is refused for what it says, else `EngineError`."""
        try:
            reply = self._client.chat.completions.create(model=self.model, **body)
            choice, usage = reply.choices[0], reply.usage
            tokens = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
            text = (choice.message.content or "").rpartition("</think>")[2]
            last = body["messages"][-1]
            if last["role"] == "assistant":  # some releases of llama-server say it again
                text = text.removeprefix(last["content"])
            return Reply(text, choice.finish_reason == "length", *tokens)
        except self._openai.OpenAIError as e:
            refused = isinstance(e, self._openai.APIStatusError) and is_refusal(e.status_code)
            raise (InputError if refused else EngineError)(f"{self.name}: {e}") from e
        except (AttributeError, TypeError, LookupError, ValueError, RecursionError) as e:
            raise EngineError(f"{self.name}: expected a chat completion, found none: {e}") from e


class RemoteSeat:
    """A place for one question at an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def close(self) -> None:
        self.endpoint.release(self)


@dataclass(frozen=True, slots=True)
class RemoteRole:
    """An endpoint in a role; it has no adapters of ours."""

    name: str
    engine: Endpoint

    def turn(self, seat: RemoteSeat, alone: bool = False) -> RemoteTurn:
        return RemoteTurn(self, seat)

    def shares_weights_with(self, other: object, task: str) -> bool:
        return False

    def require_grammar(self) -> None:
        self.engine.require_grammar()

    def hold(self, schema: JsonSchema) -> None:
        """Whether it can be held is the endpoint's to say."""

    def require_interruption(self) -> None:
        raise InputError(f"{self.engine.name}: expected a model on this machine for strategy calc: use cot with it")


class RemoteTurn:
    """A role's work on one question: messages, and the answer as far as it is written."""

    def __init__(self, role: RemoteRole, seat: RemoteSeat) -> None:
        self.role, self.seat = role, seat
        self.usage = Usage()
        self._messages: tuple[tuple[str, str], ...] = ()
        self._begun = ""

    @property
    def room(self) -> int:
        """How much fits is the endpoint's to say."""
        return sys.maxsize

    def shares_text_with(self, other: object) -> bool:
        return self is other

    def read(self, prompt: Prompt, reserve: int) -> str:
        """Take up a prompt; whether there is room for it is the endpoint's to say. It begins its answers itself."""
        if not prompt.messages:
            raise InputError(f"{self.role.engine.name}: expected a model on this machine for strategy complete")
        self._messages, self._begun = prompt.messages, ""
        return ""

    def force(self, text: str) -> None:
        self._begun += text

    def write(
        self,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        grammar: Form | None = None,
        sampling: Sampling | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> RemoteRequest:
        """Ask for a completion; a strategy yields this and is sent the `Completion`."""
        endpoint = self.role.engine
        body = endpoint.body(self._messages, self._begun, max_tokens, stop, grammar, sampling or Sampling())
        return RemoteRequest(self, body, stop, on_text)


def _count(usage: object, name: str) -> int:
    """A number of tokens, 0 where the endpoint does not say it."""
    found = getattr(usage, name, None)
    return found if isinstance(found, int) and found > 0 else 0


def is_endpoint(model: object) -> bool:
    return isinstance(model, str) and model.startswith(PREFIX)


def is_refusal(status: int) -> bool:
    """Whether an endpoint's HTTP status blames the request for what it says: it would be refused again."""
    return status in (400, 413, 422)


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY") or "none"
