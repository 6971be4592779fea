"""Endpoints in either role: a local server that speaks the dialects of those that are used, and misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import LocalServer, QuietHandler, serving
from solvers import all_free, open_tiny

from sgft_edge import evaluate, solve
from sgft_edge.errors import EngineError, InputError
from sgft_edge.evaluation.report import runs
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.reasoning.solution import Solution
from sgft_edge.solver import Solver

pytest.importorskip("openai")

BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
PLAN = "1. Find the money from all bikes.\n2. Find what is left."
Reply = str | tuple[int, str] | Callable[[], Any]


class ChatServer(LocalServer):
    """Answers chats: `writes` finds the reply to what was written before, `asks` that to the last question.

    `dialect` is that of llama-server or vLLM, or none: then grammars and begun answers mean nothing to it.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.dialect = ""
        self.writes: Callable[[str], Reply] = lambda text: "The answer is 525."
        self.asks: Callable[[str], Reply] | None = None
        self.requests: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client that has gone is part of the tests."""

    def name(self, model: str = "tiny") -> str:
        return f"openai:{self.url}/v1#{model}"

    def reply(self, request: dict[str, Any]) -> Reply:
        messages = request["messages"]
        begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        if self.dialect == "vllm":
            grammar = request.get("structured_outputs", {}).get("grammar")
            assert "grammar" not in request or grammar is None
            begun = begun if request.get("continue_final_message") and not request["add_generation_prompt"] else ""
        else:
            grammar = request.get("grammar") if self.dialect else None
        said = begun if self.dialect.endswith("again") else ""
        if grammar == 'root ::= "qz7"':
            return f"{said}qz7"
        if self.asks is not None:
            return self.asks(messages[-1]["content"].partition("\n")[0])
        written = self.writes("\n".join(message["content"] for message in messages[:-1] if begun) + begun)
        return f"{said}{written}" if isinstance(written, str) else written


class _Handler(QuietHandler):
    server: ChatServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request | {"key": self.headers["Authorization"], "path": self.path})
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        reply = self.server.reply(request)
        reply = reply() if callable(reply) else reply
        with self.server.lock:
            self.server.at_once -= 1
        status, body = (200, completion(reply)) if isinstance(reply, str) else reply
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body.encode())


def completion(text: str, finish: str = "stop") -> str:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}
    )


def expressions(text: str) -> str:
    """What an answerer writes after the steps of PLAN."""
    return "600 - 75 =" if "Find what is left" in text else "5 * 120 ="


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(ChatServer()) as server:
        yield server


def test_an_endpoint_answers_freely(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    sampling = Sampling(0.5, 0.9, 0.05, seed=3)
    with Solver.open(server.name("qwen")) as solver:
        solution = solver.solve(BIKES, Settings("cot", max_tokens=50, sampling=sampling))
        assert (solution.answer, solution.text, solution.device) == ("525", "The answer is 525.", "endpoint")
        assert solution.models == {"guide": server.name("qwen"), "answerer": server.name("qwen")}
        assert solution.digests["answerer"] == server.name("qwen")
        assert (solution.usage["answerer"].prefilled, solution.decoded) == (100, 7)
        assert all_free(solver)
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["key"] == "Bearer secret"
    told = [(message["role"], message["content"]) for message in request["messages"]]
    assert told == list(prompts.cot(Question(BIKES)).messages)
    assert (request["model"], request["max_tokens"]) == ("qwen", 50)
    assert [request[key] for key in ("temperature", "top_p", "min_p", "seed")] == [0.5, 0.9, 0.05, 3]


def test_a_guide_here_and_an_answerer_there(server: ChatServer, llama: Path) -> None:
    with open_tiny(llama, answerer=server.name()) as solver:
        solution = solver.solve(BIKES, Settings("sg", max_tokens=20))
    assert (solution.answer, solution.solved_by) == ("525", "sg")
    assert solution.models == {"guide": "llama.gguf", "answerer": server.name()}
    (request,) = server.requests
    assert [message["role"] for message in request["messages"]] == ["system", "user", "assistant", "user"]
    assert request["messages"][2]["content"].startswith(f"1. {solution.guidance[0][:4]}")
    assert solution.usage["guide"].decoded > 0


def test_a_guide_there_and_an_answerer_here(server: ChatServer, llama: Path) -> None:
    server.writes = lambda text: f"<think>Hm.</think>{PLAN}\nThe answer is 9."
    with open_tiny(server.name(), answerer=llama) as solver:
        solution = solver.solve(BIKES, Settings("exact", max_tokens=20))
    assert solution.guidance == ("Find the money from all bikes.", "Find what is left.")
    assert "grammar" not in server.requests[0]
    usage = solution.usage["guide"]
    assert (usage.decoded, usage.prefilled) == (7 * usage.calls, 100 * usage.calls)


@pytest.mark.parametrize("dialect", ["llama-server", "llama-server that says it again", "vllm"])
@pytest.mark.parametrize("plan", ["first", "stepwise"])
def test_exact_where_the_endpoint_takes_a_grammar(server: ChatServer, dialect: str, plan: str) -> None:
    server.dialect = dialect

    def writes(text: str) -> str:
        if text == "":
            return PLAN
        if text.endswith("Expression: "):
            return expressions(text)
        if text.endswith(("1.", "2.")):
            return f" {PLAN.splitlines()[int(text[-2]) - 1][3:]}\n"
        return "2" if text.count("=") == 1 + prompts.SYSTEM.count("=") else "The"

    server.writes = writes
    with Solver.open(server.name(), settings=Settings(plan=plan)) as solver:
        solution = solver.solve(BIKES, Settings("exact", plan))
        assert (solution.answer, solution.solved_by, solution.notes) == ("525", "exact", ())
        assert [step.expression for step in solution.steps] == ["5 * 120", "600 - 75"]
        before = len(server.requests)
        solver.solve(BIKES, Settings("exact", plan))
        assert len(server.requests) == before + before - (2 if dialect == "vllm" else 1)  # one probe for all


def test_exact_where_it_takes_none_is_refused(server: ChatServer) -> None:
    with Solver.open(server.name()) as solver:
        with pytest.raises(InputError, match="expected an endpoint that takes a grammar, found none: use strategy sg"):
            solver.solve(BIKES, Settings("exact"))
        assert solver.solve(BIKES, Settings("sg")).answer == "525"
    server.writes = lambda text: (400, '{"error": {"message": "unknown field"}}')
    with Solver.open(server.name()) as solver, pytest.raises(InputError, match="takes a grammar"):
        solver.solve(BIKES, Settings("exact"))


def test_that_it_takes_none_is_asked_once(server: ChatServer, tmp_path: Path) -> None:
    with Solver.open(server.name()) as solver:
        for _ in range(3):
            with pytest.raises(InputError, match="takes a grammar"):
                solver.solve(BIKES, Settings("exact"))
        assert len(server.requests) == 2  # one for each way to say a grammar
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": BIKES, "answer": "525"}) + "\n" for _ in range(3)))
    output = tmp_path / "rows.jsonl"
    assert evaluate.main([str(problems), "--guide", server.name(), "--strategy", "exact", "--output", str(output)]) == 2
    assert rows(output) == []


@pytest.mark.parametrize("dialect", ["", "llama-server"])
def test_answers_that_an_endpoint_begins_itself(server: ChatServer, dialect: str) -> None:
    server.dialect = dialect
    program = "```python\ndef solution():\n    money = 5 * 120\n    return money - 75\n```"
    replies = {"525": "direct", "The answer is 525.": "direct", program: "program"}
    for reply, strategy in replies.items():
        server.writes = lambda text, reply=reply: reply  # type: ignore[misc]
        with Solver.open(server.name()) as solver:
            solution = solver.solve(BIKES, Settings(strategy))
        assert (solution.answer, solution.solved_by, solution.notes) == ("525", strategy, ())
        assert strategy == "program" or solution.text == reply
        assert "stop" not in server.requests[-1] or strategy == "direct"


def test_calc_is_refused(server: ChatServer) -> None:
    with Solver.open(server.name()) as solver, pytest.raises(InputError, match="use cot with it"):
        solver.solve(BIKES, Settings("calc"))


def test_votes_of_an_endpoint_that_goes_away(server: ChatServer) -> None:
    replies: list[Reply] = ["The answer is 525.", (401, '{"error": {"message": "who are you?"}}')]
    server.writes = lambda text: replies.pop(0)
    with Solver.open(server.name()) as solver, pytest.raises(EngineError, match="who are you"):
        solver.solve(BIKES, Settings("cot", votes=2))


def test_a_choice_without_a_letter_has_no_answer(server: ChatServer) -> None:
    server.writes = lambda text: "Who knows?"
    with Solver.open(server.name()) as solver:
        solution = solver.solve(Question("Is it so?", {"A": "yes", "B": "no"}), Settings("cot"))
    assert (solution.answer, solution.text) == (None, "Who knows?")


def test_many_are_asked_at_once_and_no_more(server: ChatServer) -> None:
    def slowly() -> str:
        time.sleep(0.1)
        return "The answer is 525."

    server.writes = lambda text: slowly
    with Solver.open(server.name(), parallel=3) as solver:
        found = list(solver.solve_many([BIKES] * 7, Settings("cot")))
    assert [outcome.answer for outcome in found if isinstance(outcome, Solution)] == ["525"] * 7
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ((401, '{"error": {"message": "bad key"}}'), "bad key"),
        ((200, "no JSON"), "expected a chat completion, found none"),
        ((200, '{"choices": []}'), "expected a chat completion, found none"),
    ],
)
def test_what_an_endpoint_does_wrong_is_told(server: ChatServer, reply: Reply, complaint: str) -> None:
    server.writes = lambda text: reply
    with Solver.open(server.name(), parallel=2) as solver:
        with pytest.raises(EngineError, match=complaint):
            solver.solve(BIKES, Settings("cot"))
        assert all_free(solver)
        server.writes = lambda text: "525"
        assert solver.solve(BIKES, Settings("cot")).answer == "525"


def test_a_busy_endpoint_is_asked_again(server: ChatServer) -> None:
    replies: list[Reply] = [(429, "{}"), (503, "{}"), "The answer is 525."]
    server.writes = lambda text: replies.pop(0)
    with Solver.open(server.name()) as solver:
        assert solver.solve(BIKES, Settings("cot")).answer == "525"
    assert len(server.requests) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_does_not_wait_for_the_endpoint(server: ChatServer) -> None:
    held = threading.Event()
    server.writes = lambda text: lambda: str(held.wait(60))
    command = [sys.executable, "-m", "sgft_edge.solve", BIKES, "--guide", server.name(), "--strategy", "cot"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not server.requests:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        held.set()


@pytest.mark.parametrize(
    "name",
    [
        "openai:",
        "openai:http://localhost:abc/v1#m",
        "openai:localhost#m",
        "openai:http://localhost:1/v1",
        "openai:ftp://x#m",
    ],
)
def test_names_of_endpoints(name: str) -> None:
    with pytest.raises(InputError, match="expected openai:URL#MODEL"):
        Solver.open(name)


def test_an_endpoint_has_its_own_adapters(server: ChatServer, llama: Path) -> None:
    with pytest.raises(InputError, match="expected no adapter for openai:"):
        open_tiny(llama, answerer=server.name(), answerer_adapter="some.gguf")


def test_an_endpoint_that_goes_away_ends_an_evaluation_and_keeps_its_rows(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [f"What is {n} + 1?" for n in range(4)]
    replies: dict[str, Reply] = {questions[1]: (400, '{"error": {"message": "too long"}}')}
    server.asks = lambda question: replies.get(question, "The answer is 1.")
    problems, output = tmp_path / "problems.jsonl", tmp_path / "rows.jsonl"
    problems.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in questions))
    evaluation = [
        str(problems),
        "--guide",
        server.name(),
        "--strategy",
        "cot",
        "--output",
        str(output),
        "--parallel",
        "1",
    ]
    batch = ["--input", str(problems), "--output", str(tmp_path / "solved.jsonl"), "--guide", server.name()]
    replies[questions[2]] = (401, '{"error": {"message": "who are you?"}}')
    assert evaluate.main(evaluation) == 1
    assert "who are you?" in capsys.readouterr().err
    assert [row.get("answer", "refused") for row in rows(output)] == ["1", "refused"]
    assert solve.main([*batch, "--strategy", "cot", "--parallel", "1"]) == 1
    del replies[questions[2]]
    assert evaluate.main(evaluation) == 0
    found = rows(output)  # what was refused was tried again, and counts once
    assert [row.get("answer", "refused") for row in found] == ["1", "refused", "refused", "1", "1"]
    assert [[row["line"] for row in run] for run in runs(found)] == [[1, 2, 3, 4]]
    assert solve.main([*batch, "--strategy", "cot"]) == 0
    assert sorted(row["line"] for row in rows(tmp_path / "solved.jsonl")) == [1, 2, 3, 4]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_on_the_command_line(server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main([BIKES, "--guide", server.name(), "--strategy", "cot", "--quiet"]) == 0
    assert capsys.readouterr().out == "525\n"
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": BIKES, "answer": "525"}) + "\n")
    options = ["--guide", server.name(), "--strategy", "cot,sg", "--output", str(tmp_path / "rows.jsonl")]
    assert evaluate.main([str(problems), *options]) == 0
    assert capsys.readouterr().out.count("1/1") == 2
