"""What reads text from outside, each with real texts to start from: the targets of `fuzz`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import chat_templates
from tiny import tiny_model

from sgft_edge.answers import choices, extraction
from sgft_edge.calculations.calculation import calculation_in
from sgft_edge.errors import SgftError
from sgft_edge.host.journal import Journal
from sgft_edge.llama.templates import ChatTemplate
from sgft_edge.reasoning import conversation, prompts
from sgft_edge.reasoning.problems import read_problems, with_references
from sgft_edge.reasoning.schema import JsonSchema
from sgft_edge.reasoning.settings import Settings
from sgft_edge.solving.endpoint import PREFIX, Endpoint, Reply
from sgft_edge.store.header import read_header
from sgft_edge.store.manifest import read_entries
from sgft_edge.terminal.session import Session
from sgft_edge.text import arithmetic, guidance, markup, numerals, program

ROOT = Path(__file__).parents[1]
_CHOICES = {"A": "yes", "B": "no", "C": "12 apples", "D": "1/2"}
_ROWS = 60  # of each file that texts are taken from


@dataclass(frozen=True)
class Target:
    """`read` takes bytes and may raise `SgftError` or one of `documented`, nothing else."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()
    documented: tuple[type[Exception], ...] = ()


def targets(folder: Path) -> dict[str, Target]:
    """All targets by name; files are written into `folder`."""
    rows = [*_rows("train/data/solution_guidance.dev.jsonl"), *_rows("train/data/elementary.train.jsonl")]
    questions = _bytes(row["question"] for row in rows)
    expressions = _bytes(e for row in rows for e in row.get("expressions") or () if e)
    guidances = _bytes(row["guidance"] for row in rows)
    answered = [*_rows("tests/answers/data/numeric_answers.jsonl"), *_rows("tests/answers/data/choice_answers.jsonl")]
    answers = _bytes(row["text"] for row in answered)
    programs = _bytes(
        "def solution():\n    a = 2  # b\n    c = a * 3 + " + e.decode() + "\n    return c" for e in expressions[:40]
    )
    calculations = _bytes(
        ("what is 17 * 23?", "20% of 150", "zwölf plus drei", "√144", "half of 3/4", "combien font 3 fois 4 ?", "2^10=")
    )
    templates = _bytes(v for v in vars(chat_templates).values() if isinstance(v, str) and "{%" in v)
    lines = tuple(json.dumps(row).encode() for row in rows[:30])
    model = tiny_model(folder / "tiny.gguf").read_bytes()[:20_000]
    text = {
        "arithmetic": Target(_text(_arithmetic), expressions, ("**", "//", "1e200", "sqrt(", "cbrt(", "round(", "_")),
        "program": Target(_text(program.run), programs, ("```", "def f():", "return ", "print(", "'''", "+=", "#")),
        "guidance": Target(_text(_guidance), guidances, ("1. ", "Step 2: ", "(3) ", "- ", "**", "9" * 5000 + ". ")),
        "answers": Target(_text(_answers), answers, ("\\boxed{", "answer is", "####", "\\frac{", "not ", "(A)", "1:2")),
        "numerals": Target(_text(_numerals), questions, ("hundred ", "thousand ", "½", "三百", "万", "1/", "a dozen ")),
        "calculations": Target(_text(calculation_in), (*calculations, *expressions), ("% of ", "plus ", "√", "½", "²")),
        "markup": Target(_text(markup.plain), answers, ("$", "\\(", "\\frac{", "**", "\\text{", "`", "\\")),
        "conversation": Target(_text(_conversation), questions, ("\n\n", "What about ", "it ", "How many ", "twice ")),
        "template": Target(_text(_template), templates, ("{%", "%}", "{{", "}}", "loop", "for ", "|", "messages", "[")),
        "schema": Target(_schema, _schemas(), ('"pattern":', "{3}", "(", "[", "\\\\p{", '"anyOf":', "null", "1e999")),
    }
    read = {
        "problems": Target(_file(folder, _problems), lines, ('"choices":', '"answer":', "\n", "1e999", "NaN", "[[")),
        "rows": Target(_file(folder, _journal), lines, ("\n", "{", "}", "[[", "NaN")),
        "conversation file": Target(_file(folder, _load), _conversations(), ('"user"', '"assistant"', "[", "null")),
        "models.toml": Target(
            _file(folder, lambda path: read_entries(path, own=True)),
            ((ROOT / "models" / "manifest.toml").read_bytes(),),
            ("[models.", "sha256 = ", "rank = ", "{1..9999}", "pypi:", "[[", "inf", "1979-05-27"),
        ),
        "header": Target(_file(folder, _header), (model,), ("general.alignment", "GGUF"), (UnicodeDecodeError,)),
    }
    replies = (_reply("The answer is 5."), _reply(None), b'{"error": {"message": "no"}}', b"data: {}\n\n", b"[]")
    return {**text, **read, "endpoint": Target(Served(), replies, ('"content":', "null", '"choices":', "[", "data: "))}


def _rows(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:: max(1, len(lines) // _ROWS)]]


def _bytes(texts: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Bytes that are no UTF-8 become lone surrogates, as JSON can hold them."""
    return lambda given: read(given.decode("utf-8", "surrogateescape"))


def _file(folder: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = Path(tempfile.mkdtemp(dir=folder)) / "given"

    def write_and_read(given: bytes) -> object:
        path.write_bytes(given)
        return read(path)

    return write_and_read


def _arithmetic(text: str) -> None:
    for names in (None, {}):
        try:
            arithmetic.format_value(arithmetic.evaluate(text, names))
        except SgftError:
            continue


def _guidance(text: str) -> object:
    return guidance.violations(guidance.parse(text), "Anna has 3 apples and 4 pears. How many fruits has she?")


def _answers(text: str) -> None:
    found = extraction.extract(text)
    extraction.is_correct(found, "12")
    extraction.is_correct(text[:200], "3/4")
    extraction.extract(text, _CHOICES)
    extraction.extract(text, {}, whole=False)
    extraction.is_reference(text[:200])
    choices.key_of(text[:200], _CHOICES)


def _numerals(text: str) -> None:
    numerals.numbers_in(text)
    for at in range(min(len(text), 40)):
        numerals.number_in_words(text.lower(), at)
        numerals.number_in_chinese(text, at)


def _conversation(text: str) -> object:
    parts = text.split("\n\n")[-41:]
    said = [("assistant" if n % 2 else "user", part) for n, part in enumerate(reversed(parts))][::-1]
    question = conversation.question_of(said)
    prompts.guide(question)
    return conversation.strategy_for(said, question, "auto")


def _template(text: str) -> object:
    return ChatTemplate(text, "<s>", "</s>").render([("system", "Be brief."), ("user", "Hello")])


def _schema(given: bytes) -> object:
    try:
        schema = json.loads(given)
    except (ValueError, RecursionError):
        return None
    return JsonSchema.of(schema) if isinstance(schema, dict) else None


def _schemas() -> tuple[bytes, ...]:
    pattern = {"type": "string", "pattern": "^[a-z]{1,8}(-[0-9]{2})*$"}
    nested = {"type": "object", "properties": {"a": pattern, "b": {"type": "array", "items": pattern}}}
    return tuple(json.dumps(schema).encode() for schema in (pattern, nested, {"patternProperties": {"a+": nested}}))


def _problems(path: Path) -> object:
    return with_references(read_problems(path))


def _journal(path: Path) -> None:
    with Journal(path) as journal:
        journal.write({"n": len(journal.rows)})


def _load(path: Path) -> None:
    Session(None, Settings()).load(path)  # type: ignore[arg-type]


def _conversations() -> tuple[bytes, ...]:
    turns = [["user", "What is 1 + 1?"], ["assistant", "2"]]
    return (json.dumps({"format": "sgft-edge conversation 1", "system": "", "turns": turns}).encode(),)


def _header(path: Path) -> None:
    header = read_header(path)
    for key, value in header.metadata.items():
        header.text(key), header.numbers(key), header.length(key)
        value.items()
    for tensor in header.tensors:
        assert tensor.weights >= 0


def _reply(content: str | None) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    said = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(said).encode()


class Served:
    """An endpoint whose replies are the given bytes."""

    def __init__(self) -> None:
        self._given = b""
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(served._given)))
                self.end_headers()
                self.wfile.write(served._given)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        self._endpoint = Endpoint(f"{PREFIX}http://127.0.0.1:{server.server_port}/v1#m")
        self._messages = [{"role": "user", "content": "Hello"}]

    def __call__(self, given: bytes) -> Reply:
        self._given = given
        reply = self._endpoint._complete({"messages": self._messages})
        if not (isinstance(reply.text, str) and isinstance(reply.tokens_in, int) and isinstance(reply.tokens_out, int)):
            raise TypeError(f"a reply of other types: {reply}")
        return reply
