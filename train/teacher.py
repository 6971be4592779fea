"""Who writes guidances: a model behind an OpenAI-compatible endpoint, or one on this machine."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from sgft_edge.errors import ContextOverflow, InputError, SgftError
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.reasoning.task import GUIDANCE_TOKENS
from sgft_edge.solver import Solver
from sgft_edge.solving.cast import Cast
from sgft_edge.solving.endpoint import is_refusal
from sgft_edge.text.guidance import MAX_STEP_WORDS, MAX_STEPS, MAX_WORDS, MIN_STEPS, Guidance
from train.check_sg import copies, read_sg

SYSTEM = f"""\
You write plans for problems. Somebody who computes well but plans badly carries them out.
Reply with {MIN_STEPS} to {MAX_STEPS} numbered steps, one on each line, and with nothing else.
A step says in words what is to be found and from what, and needs at most one computation. The last step finds what \
the problem asks for.
Compute nothing: write no result, no arithmetic and no equals sign, and in digits only numbers that the problem gives.
Name neither the answer nor the right option.
A step has at most {MAX_STEP_WORDS} words, the plan at most {MAX_WORDS}."""

TEMPERATURE = 0.7  # of every try but the first, which is greedy
MARKUP_TOKENS = 16  # of one message at most
_MAX_COMPLETION = "max_completion_tokens"  # what newer models of OpenAI call `max_tokens`


@dataclass(frozen=True, slots=True)
class Answer:
    """What a teacher wrote, `cut` where it ran into its limit, and the tokens that it read and wrote for it."""

    text: str
    cut: bool
    tokens_in: int
    tokens_out: int


class NoAnswer(SgftError):
    """A request brought no answer.

    `again`: another one may bring it, in no less than `after` seconds where the endpoint says so. `billed`: it may
    have to be paid for all the same. `own`: it is this question's own fault, and others may fare better.
    """

    def __init__(
        self, message: str, *, again: bool = False, after: float = 0.0, billed: bool = False, own: bool = False
    ) -> None:
        super().__init__(message)
        self.again, self.after, self.billed, self.own = again, after, billed, own


class Teacher(Protocol):
    """Writes guidances, for many threads. `settings` are what its answers depend on."""

    settings: Mapping[str, Any]

    def bound(self, question: Question) -> tuple[int, int]:
        """The most tokens that one request can read and write, as far as they are to be paid for."""

    def ask(self, question: Question, number: int) -> Answer:
        """Try `number` (from 1) at a guidance, in one request. Raises `NoAnswer`."""


class LocalTeacher:
    """The guide of a solver, asked with the runtime's own prompt: it reads no examples."""

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self.settings: Mapping[str, Any] = {
            "teacher": identity(solver.cast, "guide"),
            "prompt": prompts.guide_digest()[:12],
        }

    def bound(self, question: Question) -> tuple[int, int]:
        return 0, 0

    def ask(self, question: Question, number: int) -> Answer:
        sampling = Sampling() if number == 1 else Sampling(TEMPERATURE, seed=number)
        try:
            solution = self._solver.solve(question, Settings("guidance", sampling=sampling, reproducible=False))
        except ContextOverflow as e:
            raise NoAnswer(str(e), own=True) from e
        text, used = Guidance(solution.guidance).text, solution.usage["guide"]
        return Answer(text, used.decoded >= GUIDANCE_TOKENS, used.prefilled + used.reused, used.decoded)


def identity(cast: Cast, role: str) -> str:
    """A model in a role with its adapter: the file's name and the SHA-256, shortened."""
    digests = [cast.digests[part] for part in (role, _ADAPTERS[role]) if part in cast.digests]
    return " ".join((cast.models[role], *(digest[:12] for digest in digests)))


_ADAPTERS = {"guide": "adapter", "answerer": "answerer_adapter"}


class RemoteTeacher:
    """A chat model behind an endpoint; chat turns of a question and its guidance show it what is asked for.

    The key comes from the environment, as the package `openai` reads it, and so does the endpoint unless `base_url`
    is given. `timeout` is in seconds, `max_tokens` bounds one answer. Raises `InputError`, and `SgftError` where the
    package is missing.
    """

    def __init__(
        self, model: str, seeds: Path, shots: int, *, base_url: str | None, timeout: float, max_tokens: int
    ) -> None:
        try:
            import openai
        except ImportError as e:
            raise SgftError("a teacher openai:MODEL needs the package openai: run `pip install openai`") from e
        if not model:
            raise InputError(
                "--teacher: expected a model after 'openai:', found none: name one that the endpoint knows"
            )
        rows = read_sg(seeds)
        if len(rows) < shots:
            raise InputError(f"--shots: expected at most the {len(rows)} rows of {seeds}, found {shots}: lower it")
        random.Random(0).shuffle(rows)
        self._seeds = {kind: sorted(rows, key=lambda row: bool(row.question.choices) != kind) for kind in (False, True)}
        self._openai, self._model, self._shots, self._max_tokens = openai, model, shots, max_tokens
        self._refused: frozenset[str] = frozenset()
        self.settings: Mapping[str, Any] = {
            "teacher": f"openai:{model}",
            "seeds": hashlib.sha256(seeds.read_bytes()).hexdigest()[:12],
            "shots": shots,
            "prompt": hashlib.sha256(SYSTEM.encode()).hexdigest()[:12],
        }
        url = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        if not _is_url(url):
            raise InputError(f"--base-url: expected a URL such as http://localhost:8080/v1, found {url!r}: correct it")
        try:
            self._client = openai.OpenAI(base_url=url, timeout=timeout, max_retries=0)
        except openai.OpenAIError as e:
            raise InputError(f"{e} Set OPENAI_API_KEY, to any text where the endpoint needs no key.") from e

    def bound(self, question: Question) -> tuple[int, int]:
        """A token has at least one byte."""
        messages = self._messages(question)
        return sum(len(part["content"].encode()) + MARKUP_TOKENS for part in messages), self._max_tokens

    def ask(self, question: Question, number: int) -> Answer:
        options = self._options(number)
        try:
            reply = self._client.chat.completions.create(
                model=self._model, messages=self._messages(question), **options
            )
        except self._openai.APIStatusError as e:
            refused = {name for name in options if e.status_code in (400, 422) and f"'{name}'" in str(e)}
            if refused and _MAX_COMPLETION not in refused:
                self._refused |= refused
                return self.ask(question, number)
            again = e.status_code in (408, 409, 429) or e.status_code >= 500
            after = _seconds(e.response.headers.get("retry-after", ""))
            raise NoAnswer(str(e), again=again, after=after, own=is_refusal(e.status_code)) from e
        except self._openai.APIConnectionError as e:
            unsent = type(e.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout")
            raise NoAnswer(f"{e} ({e.__cause__})", again=True, billed=not unsent) from e
        except ValueError as e:
            raise NoAnswer(f"expected a chat completion, found no JSON: {e}", again=True, billed=True) from e
        return _answer(reply, self.bound(question))

    def _options(self, number: int) -> Mapping[str, Any]:
        """Options of a request, less those that the model has refused: some know only their own temperature."""
        options: dict[str, Any] = {"temperature": 0.0} if number == 1 else {"temperature": TEMPERATURE, "seed": number}
        options[_MAX_COMPLETION if "max_tokens" in self._refused else "max_tokens"] = self._max_tokens
        return {name: value for name, value in options.items() if name not in self._refused}

    def _messages(self, question: Question) -> Sequence[Mapping[str, str]]:
        """Examples of the question's own kind come first; none is the problem itself or reads like it."""
        seeds = self._seeds[bool(question.choices)]
        others = (row for row in seeds if not any(copies([("", question.text)], [("", row.question.text)])))
        turns = [("system", SYSTEM)]
        for row in islice(others, self._shots):
            turns += [("user", row.question.with_choices), ("assistant", row.guidance)]
        return [{"role": role, "content": text} for role, text in (*turns, ("user", question.with_choices))]


def _answer(reply: Any, bound: tuple[int, int]) -> Answer:
    """Read a chat completion, which the client has not validated; without usage it counts as `bound`."""
    try:
        choice, usage = reply.choices[0], reply.usage
        tokens = (int(usage.prompt_tokens), int(usage.completion_tokens)) if usage else bound
        text = (choice.message.content or "").rpartition("</think>")[2]
        return Answer(text, choice.finish_reason == "length", *tokens)
    except (AttributeError, TypeError, ValueError, LookupError) as e:
        raise NoAnswer(f"expected a chat completion, found {str(reply)[:80]!r}", again=True, billed=True) from e


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _seconds(after: str) -> float:
    """What a Retry-After header asks for: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after"""
    try:
        if after.isdecimal():
            return float(after)
        return (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
