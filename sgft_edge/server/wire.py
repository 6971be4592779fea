"""OpenAI's chat and text completions as questions and settings, and solutions as its replies.

https://platform.openai.com/docs/api-reference/chat. Unknown fields are ignored; a known one with a wrong value, or one
that asks for what we do not have, is an `ApiError`. Fields of our own: `strategy`, `plan`, `operands`, `votes`,
`guidance`, `choices`, `reproducible` and `min_p` in a request, `sgft` in a reply.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

from sgft_edge.errors import InputError
from sgft_edge.reasoning.conversation import question_of, strategy_for
from sgft_edge.reasoning.question import Question, parse_choices
from sgft_edge.reasoning.schema import ANY_OBJECT, JsonSchema
from sgft_edge.reasoning.settings import STRATEGIES, Sampling, Settings
from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.server.fields import KINDS, REFUSED, STOP_LENGTH, STOPS, TEXTS

Body = Mapping[str, Any]


class ApiError(Exception):
    """A request that gets an error in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
        kind = "rate_limit_error" if status == 429 else kind
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A request that was understood. `chat` is false for a text completion."""

    chat: bool
    model: str
    question: Question
    settings: Settings
    stream: bool
    include_usage: bool
    id: str = field(default_factory=lambda: uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def reshaped(self) -> bool:
        """Whether the final text comes only once all else is written."""
        return self.settings.grammar is not None and self.settings.strategy not in ("chat", "complete")


def asked(body: Body, chat: bool, models: Collection[str], max_tokens: int, max_votes: int) -> ChatRequest:
    """What a request asks, its tokens cut to the server's limit; the first model where it names none.

    Raises `ApiError`.
    """
    for name, plain in REFUSED.items():
        if body.get(name) not in plain:
            raise _wrong(name, "nothing: this server does not have it", body[name], "unsupported_parameter")
    model, strategy = model_and_strategy(_get(body, "model", "") or next(iter(models)), models)
    given = _get(body, "strategy", strategy or "auto")
    if given not in STRATEGIES:
        raise _wrong("strategy", f"one of {', '.join(STRATEGIES)}", given)
    try:
        question, strategy = _question(body, given) if chat else (Question(_prompt(body)), "complete")
        tokens = _get(body, "max_completion_tokens", _get(body, "max_tokens", min(512, max_tokens)))
        tokens = max_tokens if tokens == -1 else tokens  # what llama-server and others call no limit
        seed = _get(body, "seed", None)
        settings = Settings(
            strategy,
            _get(body, "plan", "auto"),
            _get(body, "operands", "free"),
            min(tokens, max_tokens),
            _get(body, "votes", 1),
            Sampling(
                _get(body, "temperature", 0.0),
                _get(body, "top_p", 1.0),
                _get(body, "min_p", 0.0),
                seed % 2**32 if seed is not None else None,
            ),
            _stop(body),
            _schema(body),
            _get(body, "reproducible", None),
        )
    except InputError as e:
        raise ApiError(400, str(e), e.field) from e
    if settings.votes > max_votes:
        raise _wrong("votes", f"at most {max_votes}", settings.votes)
    include_usage = _get(body, "stream_options", {}).get("include_usage")
    if not isinstance(include_usage, bool | None):
        raise _wrong("stream_options", "include_usage to be true or false", include_usage)
    return ChatRequest(
        chat=chat,
        model=model,
        question=question,
        settings=settings,
        stream=_get(body, "stream", False),
        include_usage=bool(include_usage),
    )


def model_and_strategy(name: str, models: Collection[str]) -> tuple[str, str]:
    """A model and the strategy behind the last colon of its name, empty for none: names may have colons of their own.

    Raises `ApiError` for a model that is none of these.
    """
    model, _, strategy = (name, "", "") if name in models else name.rpartition(":")
    if model not in models:
        found = f"expected one of {', '.join(models)}, found {name[:80]!r}"
        raise ApiError(404, f"model: {found}", "model", "model_not_found")
    return model, strategy


def reply(request: ChatRequest, solution: Solution) -> dict[str, Any]:
    """The reply to a request that does not stream."""
    finish = "length" if solution.truncated else "stop"
    head = _head(request, "chat.completion" if request.chat else "text_completion") | {"usage": usage(solution)}
    if not request.chat:
        return head | {"choices": [{"index": 0, "text": solution.text, "finish_reason": finish, "logprobs": None}]}
    message = {
        "role": "assistant",
        "content": solution.text,
        "reasoning_content": reasoning(solution) or None,
        "refusal": None,
        "sgft": details(solution),
    }
    return head | {"choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}]}


def reasoning(solution: Solution) -> str:
    """The guidance as numbered lines."""
    return "\n".join(f"{n}. {step}" for n, step in enumerate(solution.guidance, 1))


def details(solution: Solution) -> dict[str, Any]:
    """What a solution has beyond OpenAI's fields: how it was solved, and each step's expression and value."""
    names = ("strategy", "solved_by", "why", "notes", "guidance", "answer", "votes", "seconds", "truncated")
    shown = {name: getattr(solution, name) for name in names}
    return shown | {"steps": [asdict(step) for step in solution.steps]}


def usage(solution: Solution) -> dict[str, Any]:
    """Tokens of all roles together; those taken over from a KV cache are `cached_tokens`."""
    used = list(solution.usage.values())
    read, cached = sum(u.prefilled + u.reused for u in used), sum(u.reused for u in used)
    return {
        "prompt_tokens": read,
        "completion_tokens": solution.decoded,
        "total_tokens": read + solution.decoded,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Chunks:
    """The chunks of a reply that streams, one event after another."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._planned = False
        self._steps = 0
        self._open = False

    def of(self, event: Event) -> dict[str, Any]:
        """The chunk of an event; the solution's is the last but for the usage."""
        if event.solution is not None:
            return self._last(event.solution)
        if not self._request.chat:
            return self._chunk({"text": event.text})
        delta: dict[str, Any] = {"sgft": {"kind": event.kind, "text": event.text}}
        if event.kind == "answer" and not self._request.reshaped:
            delta["content"] = event.text
        elif thought := self._thought(event):
            delta["reasoning_content"] = thought
        return self._chunk({"delta": delta})

    def usage(self, solution: Solution) -> dict[str, Any]:
        """The chunk that a request with `include_usage` ends with."""
        return self._head() | {"choices": [], "usage": usage(solution)}

    def _thought(self, event: Event) -> str:
        """What an event adds to the reasoning: a guidance or a program; steps only where no guidance came before."""
        match event.kind:
            case "guidance" | "program":
                self._planned = True
                return event.text
            case "step" if not self._planned:
                self._steps += 1
                return f"{self._steps}. {event.text}\n"
            case "note":
                self._planned, self._steps = False, 0
                return f"\n[{event.text}]\n"
        return ""

    def _last(self, solution: Solution) -> dict[str, Any]:
        finish = "length" if solution.truncated else "stop"
        if not self._request.chat:
            return self._chunk({"text": ""}, finish)
        delta: dict[str, Any] = {"sgft": {"kind": "solution", **details(solution)}}
        if self._request.reshaped:
            delta["content"] = solution.text
        return self._chunk({"delta": delta}, finish)

    def _chunk(self, content: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        if not self._open and "delta" in content:
            content["delta"] = {"role": "assistant", **content["delta"]}
        self._open = True
        return self._head() | {"choices": [{"index": 0, "finish_reason": finish, "logprobs": None, **content}]}

    def _head(self) -> dict[str, Any]:
        return _head(self._request, "chat.completion.chunk" if self._request.chat else "text_completion")


def _head(request: ChatRequest, kind: str) -> dict[str, Any]:
    prefix = "chatcmpl" if request.chat else "cmpl"
    return {"id": f"{prefix}-{request.id}", "object": kind, "created": request.created, "model": request.model}


def _question(body: Body, wanted: str) -> tuple[Question, str]:
    messages = [_message(message) for message in _get(body, "messages", [])]
    question = question_of(messages, parse_choices(body.get("choices")))
    guidance = _get(body, "guidance", None)
    if guidance is not None:
        question = Question(question.text, question.choices, guidance, history=question.history)
    return question, strategy_for(messages, question, wanted)


def _message(message: object) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(role := message.get("role"), str):
        raise _wrong("messages", "objects with a role and a content", message)
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in TEXTS]
        if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
            raise _wrong("messages", "content of texts alone", content)
        content = "".join(map(str, texts))
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise _wrong("messages", "a text as content", content)
    return "system" if role == "developer" else role, content


def _prompt(body: Body) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise _wrong("prompt", "one text", prompt)
    return prompt


def _stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [] if stop in (None, "") else [stop] if isinstance(stop, str) else stop
    fit = isinstance(stops, list) and len(stops) <= STOPS
    if not fit or not all(isinstance(s, str) and 0 < len(s) <= STOP_LENGTH for s in stops):
        raise _wrong("stop", f"a text of at most {STOP_LENGTH} characters, or at most {STOPS} of them", stop)
    return tuple(stops)


def _schema(body: Body) -> JsonSchema | None:
    """The JSON schema of a `response_format`; some clients put it beside the type, also of a `json_object`."""
    form = _get(body, "response_format", {"type": "text"})
    kind, named, beside = form.get("type"), form.get("json_schema"), form.get("schema")
    given = [named.get("schema") if isinstance(named, dict) else named, beside]
    schema = next((value for value in given if value is not None), None)
    if not all(isinstance(value, dict | None) for value in (named, *given)):
        raise _wrong("response_format", "objects as schemas", form)
    if kind == "text":
        return None
    if kind == "json_object" and schema is None:
        return ANY_OBJECT
    if kind not in ("json_object", "json_schema") or not isinstance(schema, dict):
        raise _wrong("response_format", "text, json_object, or json_schema with a schema", form)
    try:
        return JsonSchema.of(schema)
    except InputError as e:
        raise ApiError(400, f"response_format: {e}", "response_format") from e


def _get(body: Body, name: str, default: Any) -> Any:
    """A field's value, the default where it is absent or null. Raises `ApiError` for one of another kind."""
    kind, value = KINDS[name], body.get(name)
    assert kind is not None
    if value is None:
        return default
    if kind is int and isinstance(value, float) and value.is_integer():  # 16.0, as JavaScript and others may write 16
        return int(value)
    wanted: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        raise _wrong(name, words.get(kind, "a list" if kind is list else "an object"), value)
    return value


def _wrong(name: str, expected: str, found: object, code: str | None = None) -> ApiError:
    shown = json.dumps(found, ensure_ascii=True, default=str)
    return ApiError(400, f"{name}: expected {expected}, found {shown[:80]}", name, code)
