"""Guidance data from a teacher: a local endpoint that misbehaves in every way, tiny models, and no money lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import tiny
from servers import LocalServer, QuietHandler, serving

from train import generate_sg, ledger
from train.check_sg import faults_of, read_sg

ROOT = Path(__file__).parents[2]
GOOD = "1. Find the pens in all the boxes.\n2. Find the pens that are left after some are given away."
COMPUTES = "1. Find the pens: 3 * 12 = 36.\n2. Find the pens that are left."
RECALLS = "1. Recall what a whale breathes.\n2. Judge whether that is what fish do."
WHALE = {"question": "Is a whale a fish?", "choices": {"A": "yes", "B": "no"}, "answer": "B", "dataset": "sea"}

Reply = str | tuple[int, dict[str, str], str] | Callable[[], Any]


def completion(text: str | None, finish: str = "stop", **more: Any) -> str:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m"} | {
        "choices": choices, "usage": usage, **more,
    })  # fmt: skip


def error(status: int, message: str, **headers: str) -> Reply:
    return status, headers, json.dumps({"error": {"message": message}})


def silence() -> str:
    time.sleep(2)
    return GOOD


def hang_up() -> None:
    return None


def wait_until_a_date() -> Reply:
    return error(429, "slow down", Retry_After=formatdate(time.time() + 3, usegmt=True))


class Endpoint(LocalServer):
    """Speaks the form of chat completions; `script` has the replies to a question until it answers well."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.script: dict[str, list[Reply]] = {}
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.answered: Counter[str] = Counter()

    def reply(self, request: dict[str, Any]) -> Reply:
        self.times.append(time.monotonic())
        self.requests.append(request)
        question = request["messages"][-1]["content"]
        waiting = self.script.get(question.splitlines()[0], [])
        return waiting.pop(0) if waiting else RECALLS if "(A)" in question else GOOD

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is part of the tests."""


class _Handler(QuietHandler):
    server: Endpoint

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.server.reply(request)
        reply = reply() if callable(reply) else reply
        if reply is None:
            return
        status, headers, body = (200, {}, completion(reply)) if isinstance(reply, str) else reply
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body.encode())
        self.wfile.flush()
        if status == 200:
            self.server.answered[request["messages"][-1]["content"]] += 1


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Endpoint()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        yield server


def question(boxes: int) -> str:
    return f"Ann has {boxes} boxes of 12 pens and gives 10 pens away. How many pens are left?"


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any] | int) -> Path:
        path = tmp_path / "problems.jsonl"
        full = [{"question": question(row), "answer": 12 * row - 10} if isinstance(row, int) else row for row in rows]
        path.write_text("".join(json.dumps({"id": f"p{i}"} | row) + "\n" for i, row in enumerate(full)))
        return path

    return write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sg.jsonl"


def generate(source: Path, out: Path, *more: str, teacher: str = "openai:m") -> int:
    return generate_sg.main([str(source), "--out", str(out), "--teacher", teacher, *more])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def journal(out: Path) -> list[dict[str, Any]]:
    return rows(out.with_name("sg.jsonl.journal"))


# ---------------------------------------------------------------- what is asked, what is kept


def test_rows_come_out_in_their_order_and_form(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.script[question(3)] = ["**Plan**\n\nStep 1: Find the pens in all the boxes.\nStep 2: Find what is left."]
    source = problems(3, WHALE, 4, 5, {"question": question(4), "answer": "It is 48 - 10.\n#### 38"})
    assert generate(source, out, "--parallel", "3") == 0
    found = rows(out)
    assert found[0] == {
        "id": "p0",
        "question": question(3),
        "guidance": "1. Find the pens in all the boxes.\n2. Find what is left.",
        "answer": "26",
    }
    assert found[1] == {"id": "p1", **WHALE, "guidance": RECALLS}
    assert [row["id"] for row in found] == ["p0", "p1", "p2", "p3"]
    assert [fault for row in read_sg(out) for fault in faults_of(row)] == []
    told = capsys.readouterr()
    assert "4 of 4 problems have a guidance (100%)" in told.out
    assert "judged by the check alone" in told.out
    assert "400 tokens read and 200 written" in told.out
    assert "1 of 5 problems are repeated" in told.err
    assert "4 of 4 problems, 4 kept" in told.err


def test_the_prompt_has_examples_of_the_same_kind_but_never_the_problem(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path
) -> None:
    seeds = problems(
        *({"question": f"What is {name}?", "guidance": GOOD, "answer": "1"} for name in ("one", "two thirds")),
        {"question": question(3), "guidance": GOOD, "answer": "26"},
        WHALE | {"question": "Is a bat a bird?", "guidance": RECALLS},
    ).rename(out.with_name("seeds.jsonl"))
    assert generate(problems(3, WHALE), out, "--seeds", str(seeds), "--shots", "2", "--parallel", "1") == 0
    for request, asked in zip(endpoint.requests, (question(3), "Is a whale a fish?\n(A) yes\n(B) no"), strict=True):
        assert [part["role"] for part in request["messages"]] == ["system", *("user", "assistant") * 2, "user"]
        assert [part["content"] for part in request["messages"]].count(asked) == 1
        assert request["messages"][-1]["content"] == asked
    assert endpoint.requests[1]["messages"][1]["content"] == "Is a bat a bird?\n(A) yes\n(B) no"


def test_another_try_is_sampled_and_faults_are_counted(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = (200, {}, completion(GOOD, finish="length"))
    endpoint.script = {question(3): [COMPUTES, GOOD], question(4): ["", "I cannot.", cut]}
    assert generate(problems(3, 4), out, "--parallel", "1", "--max-tokens", "70") == 0
    assert [row["id"] for row in rows(out)] == ["p0"]
    asked = [{name: r.get(name) for name in ("temperature", "seed", "max_tokens")} for r in endpoint.requests]
    assert asked[:2] == [
        {"temperature": 0.0, "seed": None, "max_tokens": 70},
        {"temperature": 0.7, "seed": 2, "max_tokens": 70},
    ]
    told = capsys.readouterr().out
    assert "1 of 5 answers were kept (20%)" in told
    for kind in ("arithmetic", "empty", "form", "cut off"):
        assert f"  {kind}: 1\n" in told
    texts = [row["text"] for row in journal(out) if "text" in row]
    assert texts == [COMPUTES, GOOD, "", "I cannot.", GOOD]
    assert [row["faults"] for row in journal(out) if "faults" in row][:2] == [["arithmetic", "foreign number"], []]


def test_nothing_kept_is_a_failure(endpoint: Endpoint, problems: Callable[..., Path], out: Path) -> None:
    endpoint.script[question(3)] = [COMPUTES] * 2
    assert generate(problems(3), out, "--tries", "2") == 1
    assert rows(out) == []
    assert generate(problems(3), out, "--tries", "3") == 0  # the third one is asked for now
    assert len(endpoint.requests) == 3


def test_what_a_model_refuses_is_left_out(endpoint: Endpoint, problems: Callable[..., Path], out: Path) -> None:
    endpoint.script[question(3)] = [
        error(400, "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        error(400, "Unsupported value: 'temperature' does not support 0 with this model."),
    ]
    assert generate(problems(3, 4), out, "--parallel", "1", "--max-tokens", "90") == 0
    assert len(endpoint.requests) == 4
    for request in endpoint.requests[2:]:
        assert request["max_completion_tokens"] == 90
        assert not {"max_tokens", "temperature"} & set(request)


def test_thoughts_are_dropped_and_missing_usage_counts_in_full(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path
) -> None:
    endpoint.script[question(3)] = [(200, {}, completion(f"<think>1. 36\n2. 26</think>\n{GOOD}", usage=None))]
    assert generate(problems(3), out, "--max-tokens", "80") == 0
    assert rows(out)[0]["guidance"] == GOOD
    assert journal(out)[1]["tokens_out"] == 80


# ---------------------------------------------------------------- an endpoint that misbehaves


@pytest.mark.parametrize(
    ("reply", "least", "lost"),
    [
        (error(429, "slow down", Retry_After="2"), 2, 0),
        (error(500, "oops"), 0.5, 0),
        ((200, {}, "{garbage"), 0.5, 1),
        ((200, {"Content-Type": "text/html"}, "<html>"), 0.5, 1),
        ((200, {}, '{"error": {"message": "upstream"}}'), 0.5, 1),
        (silence, 1.5, 1),
        (hang_up, 0.5, 1),
        (wait_until_a_date, 1.9, 0),
    ],
    ids=["429", "500", "garbage", "a page", "no choices", "silence", "no response", "429 with a date"],
)
def test_a_request_that_fails_is_repeated(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path, reply: Reply, least: float, lost: int
) -> None:
    """What may have been billed is counted at the most that it can cost."""
    endpoint.script[question(3)] = [reply]
    assert generate(problems(3), out, "--timeout", "1", "--tries", "1", "--max-tokens", "60") == 0
    assert [row["id"] for row in rows(out)] == ["p0"]
    assert len(endpoint.requests) == 2
    assert endpoint.times[1] - endpoint.times[0] >= least
    assert [row["tokens_out"] for row in journal(out) if "lost" in row] == [60] * lost


def test_what_stays_away_is_asked_for_by_the_next_run(
    endpoint: Endpoint,
    problems: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ledger, "RETRIES", 1)
    endpoint.script[question(3)] = [error(503, "busy"), error(429, "come back tomorrow", Retry_After="86400")]
    assert generate(problems(3, 4), out) == 0
    assert [row["id"] for row in rows(out)] == ["p1"]
    assert "1 problems still wait for an answer" in capsys.readouterr().out
    assert generate(problems(3, 4), out) == 0
    assert [row["id"] for row in rows(out)] == ["p0", "p1"]
    assert set(endpoint.answered.values()) == {1}


def test_an_endpoint_that_only_fails_is_left(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.script = {question(n): [error(401, "wrong key")] for n in range(3, 33)}
    assert generate(problems(*range(2, 33)), out, "--parallel", "1") == 1
    assert [row["id"] for row in rows(out)] == ["p0"]  # what there was before is kept
    assert len(endpoint.requests) == 11
    assert re.fullmatch(r"sgft-edge: error: gave up after 10 failures in a row.*wrong key.*", _last(capsys))


def test_questions_that_are_refused_do_not_stop_the_others(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path
) -> None:
    endpoint.script = {question(n): [error(400, "against our policy")] for n in range(3, 18)}
    assert generate(problems(*range(3, 20)), out, "--parallel", "1") == 0
    assert [row["id"] for row in rows(out)] == ["p15", "p16"]
    assert len(endpoint.requests) == 17


def _last(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


# ---------------------------------------------------------------- money


def test_the_cost_is_shown_and_kept_below_its_limit(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = problems(*range(3, 23))
    prices = ["--price-in", "10", "--price-out", "20", "--max-tokens", "50", "--shots", "0"]
    assert generate(source, out, *prices, "--max-cost", "0.025", "--parallel", "8") == 0
    told = capsys.readouterr()
    paid = len(endpoint.requests)
    assert 0 < paid < 12  # of 0.002 each
    assert len(rows(out)) == paid
    assert f"at a cost of {paid * 0.002:.4f}" in told.out
    assert f"{20 - paid} problems still wait for an answer" in told.out
    assert "--max-cost 0.025 is used up" in told.out
    assert re.search(r"minutes and 0\.\d+ more to go", told.err)
    assert generate(source, out, *prices, "--max-cost", "1") == 0
    assert len(rows(out)) == len(endpoint.requests) == 20


def test_a_limit_that_pays_for_nothing(endpoint: Endpoint, problems: Callable[..., Path], out: Path) -> None:
    assert generate(problems(3), out, "--price-out", "20", "--max-cost", "0.0001") == 1
    assert endpoint.requests == []


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "train.generate_sg", str(source), "--out", str(out), "--teacher", "openai:m", *more]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_nothing_is_paid_twice_after_a_kill(endpoint: Endpoint, problems: Callable[..., Path], out: Path) -> None:
    source, held = problems(3, 4, 5, 6), threading.Event()
    endpoint.script = {question(3): [COMPUTES, GOOD], question(4): [COMPUTES, lambda: str(held.wait(30))]}
    process = subprocess.Popen(command(source, out, "--parallel", "1"), cwd=ROOT, stderr=subprocess.DEVNULL)
    _until(lambda: len(endpoint.requests) == 4)
    process.kill()
    assert process.wait(timeout=20) == -signal.SIGKILL
    assert not out.exists()
    before = journal(out)
    with out.with_name("sg.jsonl.journal").open("ab") as file:
        file.write(b'{"key": "cut off in the mid')  # as a crash of the machine leaves it
    assert generate(source, out) == 0
    held.set()
    assert journal(out)[: len(before)] == before
    assert [row["id"] for row in rows(out)] == ["p0", "p1", "p2", "p3"]
    assert [r["seed"] for r in endpoint.requests[4:] if r["messages"][-1]["content"] == question(4)] == [2]
    assert len(endpoint.requests) == 7  # six answers, and the one that was cut off
    assert generate(source, out) == 0
    assert len(endpoint.requests) == 7


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_waits_for_what_is_paid(endpoint: Endpoint, problems: Callable[..., Path], out: Path) -> None:
    source = problems(*range(3, 13))
    endpoint.script = {question(n): [silence] for n in range(3, 13)}
    process = subprocess.Popen(command(source, out, "--parallel", "2"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _until(lambda: len(endpoint.requests) == 2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert len([row for row in journal(out) if "text" in row]) == len(endpoint.requests) == 2
    endpoint.script = {}
    assert generate(source, out) == 0
    assert len(rows(out)) == len(endpoint.requests) == 10


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---------------------------------------------------------------- models on this machine


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(tiny.tiny_model(tmp_path / "tiny.gguf", vocab=tiny.byte_tokenizer()))


def test_a_model_of_this_machine_teaches(
    model: str, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tiny random model writes nonsense, in the form of a guidance."""
    source = problems(3, WHALE, 4)
    given = ["--threads", "1", "--tries", "2", "--parallel", "2"]
    status = generate(source, out, *given, teacher=model)
    answers = [row for row in journal(out) if "text" in row]
    assert status == (0 if rows(out) else 1)
    assert 3 <= len(answers) <= 6
    assert all(row["text"].startswith("1. ") and row["tokens_out"] > 0 for row in answers)
    by_problem = {(row["key"], row["try"]): row["text"] for row in answers}
    for key in {key for key, number in by_problem if number == 2}:
        assert by_problem[key, 1] != by_problem[key, 2]
    assert generate(source, out, *given, teacher=model) == status
    assert [row for row in journal(out) if "text" in row] == answers
    other = str(tiny.tiny_model(Path(model).with_name("other.gguf"), seed=1))
    assert generate(source, out, *given, teacher=other) == 2
    assert "has answers to other settings, expected teacher other.gguf" in _last(capsys)


def test_an_answerer_decides(
    endpoint: Endpoint, smollm2: Path, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reaches one reference and cannot reach the other, which is wrong; without it both pass, and cost no more."""
    source = problems(3, {"question": question(4), "answer": 777})
    given = ["--tries", "2", "--threads", "1", "--answerer", str(smollm2)]
    assert generate(source, out, *given) == 0
    assert rows(out)[0]["expressions"] == ["3 * 12", "36 - 10"]
    assert [row["id"] for row in rows(out)] == ["p0"]
    assert [fault for row in read_sg(out) for fault in faults_of(row)] == []
    assert len(endpoint.requests) == 3
    told = capsys.readouterr().out
    assert "  not followed: 2\n" in told
    assert f"judged by the check and by what {smollm2} makes of them" in told
    before = journal(out)
    assert generate(source, out, *given) == 0
    assert journal(out) == before  # verdicts are kept as well
    assert generate(source, out) == 0
    assert [(row["id"], "expressions" in row) for row in rows(out)] == [("p0", False), ("p1", False)]
    assert len(endpoint.requests) == 3


def test_an_answerer_decides_on_choices(
    endpoint: Endpoint, model: str, problems: Callable[..., Path], out: Path
) -> None:
    """A free answer of a tiny model is one of the choices, always the same: right for one reference only."""
    source = problems(WHALE | {"answer": "A"}, WHALE | {"answer": "B"})
    assert generate(source, out, "--tries", "1", "--threads", "1", "--answerer", model) == 0
    assert len(rows(out)) == 1
    assert "expressions" not in rows(out)[0]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("not json", "line 2: expected a JSON object"),
        ('{"answer": 3}', "line 2: expected a JSON object with a text 'question'"),
        ('{"question": " ", "answer": 3}', "line 2: question: expected a text"),
        ('{"question": "How many?"}', "line 2: answer: expected a number, found 'None'"),
        ('{"question": "Who?", "answer": "Ann"}', "line 2: answer: expected a number, found 'Ann'"),
        ('{"question": "Who?", "choices": ["Ann", "Bo"], "answer": "Ann"}', "line 2: answer: expected one of A, B"),
        ('{"question": "Who?", "choices": 5, "answer": "A"}', "line 2: choices: expected texts"),
    ],
)
def test_a_bad_row_is_refused_before_anything_is_paid(
    endpoint: Endpoint,
    problems: Callable[..., Path],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    complaint: str,
) -> None:
    source = problems(3)
    source.write_text(f"{source.read_text()}{line}\n")
    assert generate(source, out) == 2
    assert complaint in _last(capsys)
    assert endpoint.requests == []
    assert not out.with_name("sg.jsonl.journal").exists()


@pytest.mark.parametrize(
    ("more", "environment", "complaint"),
    [
        (["--max-cost", "1"], {}, "--max-cost: expected --price-in or --price-out"),
        (["--teacher", "openai:m", "--max-tokens", "0"], {}, "Invalid value for '--max-tokens'"),
        (["--tries", "0"], {}, "Invalid value for '--tries'"),
        (["--shots", "9999"], {}, "--shots: expected at most the 1244 rows"),
        (["--seeds", "nowhere.jsonl"], {}, "cannot read nowhere.jsonl"),
        (["--base-url", "localhost:80"], {}, "--base-url: expected a URL"),
        (["--base-url", "http://a:b"], {}, "--base-url: expected a URL"),
        (["--teacher", "tiny.gguf", "--shots", "2"], {}, "--shots: expected a teacher openai:MODEL"),
        (["--teacher", "tiny.gguf"], {}, "no model file at tiny.gguf"),
        (["--teacher", "openai:"], {}, "--teacher: expected a model"),
        (["--answerer", "nobody"], {}, "nobody"),
        (["--out", "."], {}, "--out: . is there"),
        (["--out", "nowhere/sg.jsonl"], {}, "cannot write nowhere/sg.jsonl.journal"),
        ([], {"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
    ],
)
def test_wrong_usage_is_one_line(
    endpoint: Endpoint,
    problems: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    environment: dict[str, str],
    complaint: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert generate(problems(3), out, *more) in (1, 2)
    assert complaint in _last(capsys)
    assert endpoint.requests == []
    assert not out.exists()


def test_a_missing_package_says_what_to_install(
    problems: Callable[..., Path], out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert generate(problems(3), out) == 1
    assert "pip install openai" in _last(capsys)


@pytest.mark.parametrize("change", [["--shots", "1"], ["--teacher", "openai:other"]])
def test_answers_to_other_settings_are_not_mixed(
    endpoint: Endpoint,
    problems: Callable[..., Path],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
) -> None:
    source = problems(3)
    assert generate(source, out) == 0
    assert generate(source, out, *change) == 2
    assert "has answers to other settings, expected" in _last(capsys)
    assert len(endpoint.requests) == 1
    assert generate(source, out, *change, "--restart") == 0
    assert len(endpoint.requests) == 2


def test_a_file_of_others_is_not_overwritten(
    endpoint: Endpoint, problems: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = problems(3)
    out.write_text("a shopping list\n")
    assert generate(source, out) == 2
    assert "not made by this command" in _last(capsys)
    assert generate(source, source, "--restart") == 2
    assert out.read_text() == "a shopping list\n"
    out.unlink()
    out.with_name("sg.jsonl.journal").write_text('{"a": "journal of something else"}\n')
    assert generate(source, out) == 2
    assert "has answers to other settings" in _last(capsys)
