"""The command line: one question, with a tiny model whose words are nonsense but whose form the grammars hold."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import corrupted, not_gguf, tiny_adapter, tiny_model, truncated, wrong_architecture

from sgft_edge import Solver, cli, solve
from sgft_edge.store import places

QUESTION = "A shop sells 5 bikes for 120 dollars each. How much is that?"
GUIDANCE = "1. Multiply the price by the number of bikes.\n2. Say the result."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


def run(*arguments: str | bytes, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sgft_edge.solve", *arguments]
    return subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)


def test_json_holds_the_whole_solution(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    steps = tmp_path / "steps.txt"
    steps.write_text(GUIDANCE)
    options = ["--guide", model, "--strategy", "exact", "--guidance-file", str(steps), "--seed", "7", "--json"]
    assert solve.main([QUESTION, *options]) == 0
    solution = json.loads(capsys.readouterr().out)
    assert solution["guidance"] == ["Multiply the price by the number of bikes.", "Say the result."]
    assert solution["seed"] == 7
    assert solution["models"] == {"guide": "tiny.gguf", "answerer": "tiny.gguf"}
    assert set(solution["digests"]) == {"guide", "answerer", "prompts"}
    assert solution["usage"]["guide"]["decoded"] == 0
    assert solution["usage"]["answerer"]["decoded"] > 0


def test_streamed_text_has_guidance_and_answer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main([QUESTION, "--guide", model, "--strategy", "sg", "--max-tokens", "5"]) == 0
    out, err = capsys.readouterr()
    assert "Guidance\n1. " in out
    assert "Answer\n" in out
    assert "tokens decoded" in err


def test_votes_are_counted_and_the_winner_shown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--guide",
        model,
        "--strategy",
        "direct",
        "--max-tokens",
        "8",
        "--votes",
        "3",
        "--choices",
        "A=one;B=two",
    ]
    assert solve.main(["Which?", *options, "--json"]) == 0
    solution = json.loads(capsys.readouterr().out)
    assert sum(solution["votes"].values()) == 3
    assert solve.main(["Which?", *options]) == 0
    count = f"{solution['votes'][solution['answer']]} of 3 votes"
    assert capsys.readouterr().out.partition(f"\n{count}\n")[2].strip() == solution["text"]


def test_quiet_prints_one_answer(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--guide", model, "--choices", "A=yes;B=no", "--strategy", "direct", "--max-tokens", "3", "--quiet"]
    assert solve.main(["Is it so?", *options]) == 0
    assert capsys.readouterr().out.strip() in ("A", "B")


@pytest.mark.parametrize("where", ["argument", "pipe", "dash", "file"])
def test_the_question_comes_from_anywhere(model: str, where: str, tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text(QUESTION)
    given = {
        "argument": ([QUESTION], None),
        "pipe": ([], QUESTION.encode()),
        "dash": (["-"], QUESTION.encode()),
        "file": (["--file", str(tmp_path / "question.txt")], None),
    }
    arguments, text = given[where]
    done = run(*arguments, "--guide", model, "--strategy", "direct", "--max-tokens", "2", "--json", text=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["question"] == QUESTION


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", b"found nothing"),
        (b" \n\t ", b"found nothing"),
        (b"caf\xe9", b"byte 0xe9"),
        (b"x" * 300_000, b"at most 200000 characters"),
    ],
    ids=["empty", "blank", "latin-1", "huge"],
)
def test_bad_questions_are_usage_errors_of_one_line(model: str, text: bytes, complaint: bytes) -> None:
    done = run("--guide", model, text=text)
    assert done.returncode == 2
    assert done.stdout == b""
    assert complaint in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_question_that_is_not_utf_8_on_the_command_line(model: str) -> None:
    done = run(b"caf\xe9 5?", "--guide", model)
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr


def test_digits_of_other_scripts_and_currency_are_read(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main(["٣ boxes cost €5.50 or ₹100?", "--guide", model, "--strategy", "exact", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["question"].startswith("٣")


def test_overflow_says_the_numbers(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main(["What is 5 + " + "1 + " * 3000 + "1?", "--guide", model, "--strategy", "cot"]) == 1
    assert "the context window holds 2048: shorten the question or raise --context" in capsys.readouterr().err


def test_a_missing_model_names_the_command_that_fetches_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main([QUESTION]) == 1
    told = "no model is on this machine: run `sgft-edge models pull`, which fetches qwen2.5-coder-0.5b"
    assert told in capsys.readouterr().err
    assert solve.main([QUESTION, "--guide", "smollm2"]) == 1
    assert "run `sgft-edge models pull smollm2`" in capsys.readouterr().err


def test_the_default_answers_and_is_told_where_it_is_not_the_plain_one(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places.add("smollm2", Path(model), force=True)
    options = ["--adapter", "none", "--strategy", "direct", "--max-tokens", "2", "--json"]
    assert solve.main([QUESTION, *options]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["models"] == {"guide": "tiny.gguf", "answerer": "tiny.gguf"}
    assert err == (
        "sgft-edge: smollm2 answers where no model is named: "
        "qwen2.5-coder-0.5b is not on this machine, `sgft-edge models pull` fetches it\n"
    )
    places.add("qwen2.5-coder-0.5b", Path(model), force=True)
    assert solve.main([QUESTION, *options]) == 0
    assert capsys.readouterr().err == ""
    with Solver.open(adapter="none") as solver:
        assert solver.cast.models["guide"] == "tiny.gguf"


@pytest.mark.parametrize("broken", [truncated, corrupted])
def test_damaged_models(model: str, broken, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = broken(Path(model), tmp_path / "broken.gguf")
    assert solve.main([QUESTION, "--guide", str(path)]) == 1
    assert capsys.readouterr().err.startswith("sgft-edge: error: ")


@pytest.mark.parametrize("other", [not_gguf, wrong_architecture])
def test_files_that_are_no_models(other, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main([QUESTION, "--guide", str(other(tmp_path / "other.gguf"))]) == 1
    assert "other.gguf" in capsys.readouterr().err


def test_an_adapter_of_another_base_and_one_with_unknown_prompts(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitting = tiny_adapter(tmp_path / "fitting.gguf", Path(model))
    options = ["--guide", model, "--strategy", "direct", "--max-tokens", "2"]
    assert solve.main([QUESTION, *options, "--adapter", str(fitting)]) == 0
    assert "warning: fitting.gguf: expected an adapter trained with these prompts" in capsys.readouterr().err
    foreign = tiny_adapter(tmp_path / "foreign.gguf", Path(model), architecture="qwen2")
    assert solve.main([QUESTION, *options, "--adapter", str(foreign)]) == 1
    assert "not an adapter for tiny.gguf" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "--strategy", "guess"],
        ["a", "--input", "x.jsonl"],
        ["a", "--temperature", "-1"],
        ["a", "--max-tokens", "0"],
        ["a", "--context", "0"],
        ["a", "--file", "b"],
        ["a", "--nonsense"],
        ["a", "--choices", "A=only"],
        ["a", "--device", "cpu", "--require-gpu"],
    ],
)
def test_wrong_usage_exits_with_2(model: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert solve.main([*arguments, "--guide", model]) == 2
    assert capsys.readouterr().err


def test_the_subcommands_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in ("solve", "models", "evaluate", "doctor", "bench"):
        assert f"\n  {name} " in listed
        assert cli.main([name, "--help"]) == 0
    assert cli.main(["nonsense"]) == 2


def test_require_gpu_fails_where_there_is_none(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sgft_edge.llama.device import hardware

    if any(device.is_gpu for device in hardware()):
        pytest.skip("this machine has a GPU")
    assert solve.main([QUESTION, "--guide", model, "--require-gpu"]) == 2
    assert "no GPU was found" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_at_once_with_130(model: str) -> None:
    command = [sys.executable, "-m", "sgft_edge.solve", QUESTION, "--guide", model, "--strategy", "cot"]
    process = subprocess.Popen(
        [*command, "--max-tokens", "1900"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.read(40)  # it is decoding
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 5


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_crash(model: str) -> None:
    command = f"{sys.executable} -m sgft_edge.solve '{QUESTION}' --guide {model} --strategy cot | head -c 5"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
