"""Evaluation: rows kept, counted and resumed; the statistics against published values."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tiny import tiny_adapter, tiny_model

from sgft_edge import evaluate, solve
from sgft_edge.evaluation.report import Flips, summarize
from sgft_edge.evaluation.significance import mcnemar, wilson
from sgft_edge.evaluation.table import print_tables

PROBLEMS = [
    {"id": "a", "question": "What is 1 + 1?", "answer": 2, "guidance": "1. Add the numbers.\n2. Say the sum."},
    {"id": "b", "question": "Is it so?", "answer": "A", "choices": {"A": "yes", "B": "no"}, "guidance": "1. Think."},
    {"id": "c", "question": "What is 3 + 4?", "answer": "7", "guidance": "1. Add the numbers."},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    return path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_strategy_gets_a_row_for_each_problem(
    model: str, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.jsonl"
    options = ["--guide", model, "--max-tokens", "6", "--output", str(output)]
    assert evaluate.main([str(problems), "--strategy", "direct,exact", "--given-guidance", *options]) == 0
    got = rows(output)
    assert sorted((row["run"]["strategy"], row["id"]) for row in got) == [
        (strategy, name) for strategy in ("direct", "exact") for name in "abc"
    ]
    for row in got:
        assert row["correct"] == (row["answer"] == row["reference"])
    assert next(row for row in got if row["strategy"] == "exact" and row["id"] == "a")["guidance"] == [
        "Add the numbers.",
        "Say the sum.",
    ]
    table = capsys.readouterr().out
    correct = sum(row["correct"] for row in got if row["run"]["strategy"] == "direct")
    assert f"{correct}/3" in next(line for line in table.splitlines() if line.startswith("direct"))


def test_a_second_run_solves_only_what_is_missing(model: str, problems: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    options = [str(problems), "--strategy", "direct", "--guide", model, "--max-tokens", "6", "--output", str(output)]
    assert evaluate.main([*options, "--limit", "2"]) == 0
    first = output.read_bytes()
    assert evaluate.main(options) == 0
    assert output.read_bytes().startswith(first)
    assert sorted(row["id"] for row in rows(output)) == ["a", "b", "c"]
    assert evaluate.main([*options, "--seed", "1"]) == 0  # another seed is another run
    assert len(rows(output)) == 6
    assert evaluate.main([*options, "--given-guidance"]) == 0  # and so is a given guidance
    assert len(rows(output)) == 9


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "What?"}, "expected an 'answer'"),
        ({"question": "", "answer": "1"}, "found nothing"),
        ({"question": "What is 1 + 1?", "answer": "2"}, "expected a 'guidance'"),
    ],
)
def test_problems_that_cannot_be_evaluated(
    model: str, row: dict, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n")
    assert evaluate.main([str(tmp_path / "bad.jsonl"), "--given-guidance", "--guide", model]) == 2
    assert complaint in capsys.readouterr().err
    assert evaluate.main([str(tmp_path / "bad.jsonl"), "--strategy", "guess", "--guide", model]) == 2


def test_rows_of_other_problems_are_not_mixed_in(
    model: str, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.jsonl"
    options = ["--strategy", "direct", "--guide", model, "--max-tokens", "6", "--output", str(output)]
    assert evaluate.main([str(problems), *options]) == 0
    problems.write_text(json.dumps({"question": "Another?", "answer": "1"}) + "\n")
    assert evaluate.main([str(problems), *options]) == 2
    assert "rows of other problems" in capsys.readouterr().err


def test_summary_counts() -> None:
    usage = {"guide": {"decoded": 10}, "answerer": {"decoded": 5}}
    run = {"strategy": "exact", "plan": "stepwise", "operands": "free", "given_guidance": False}
    solved = {"run": run, "strategy": "exact", "usage": usage, "wall_seconds": 2.0, "question": "?", "notes": []}
    solved |= {"guidance": ["Add."], "steps": [], "text": "", "reference": "3", "choices": {}}
    rows = [
        {**solved, "line": 1, "solved_by": "exact", "answer": "3", "correct": True},
        {**solved, "line": 2, "solved_by": "sg", "answer": None, "correct": False},
        {"run": run, "line": 3, "question": "?", "error": "too long", "correct": False, "wall_seconds": 2.0},
    ]
    found = summarize(rows)
    assert (found.name, found.correct, found.problems, found.unparsed, found.fallbacks) == (
        "exact stepwise",
        1,
        3,
        2,
        1,
    )
    assert (found.guide_tokens, found.answerer_tokens, found.decoded, found.seconds) == (10.0, 5.0, 15.0, 2.0)
    assert (found.guide_seconds, found.answerer_seconds) == (None, None)  # rows without these figures
    assert found.failures == {"fell back": 1, "error": 1}
    assert found.flips is None
    timed = {"guide": {"decoded": 10, "seconds": 3.0}, "answerer": {"decoded": 5, "seconds": 1.0}}
    newer = summarize([{**row, "usage": timed} if "usage" in row else row for row in rows])
    assert (newer.guide_seconds, newer.answerer_seconds) == (3.0, 1.0)
    other = [{**row, "correct": not row["correct"]} for row in rows]
    against = summarize(rows, other)
    assert against.flips == Flips(gained=1, lost=2)
    assert summarize(rows, other[:2]).flips is None  # other problems


@pytest.mark.parametrize(
    ("strategy", "given", "shown"),
    [
        ("cot", False, "cot"),
        ("sg", False, "sg [guide]"),
        ("exact", False, "exact first [guide] [answers]"),
        ("exact", True, "exact given [answers]"),
        ("program", False, "program [programs]"),
    ],
)
def test_a_line_names_the_adapters_that_were_on(
    strategy: str, given: bool, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"guide": "a.gguf", "adapter": "guide.gguf"}
    models |= {"answerer_adapter": "answers.gguf", "program_adapter": "programs.gguf"}
    run = {"strategy": strategy, "plan": "first", "operands": "free", "given_guidance": given}
    row = {"run": run, "line": 1, "question": "?", "error": "too long", "correct": False, "wall_seconds": 2.0}
    print_tables([summarize([row | {"models": models}])])
    assert capsys.readouterr().out.splitlines()[1].split("  ")[0] == shown


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_those_published(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_without_trials_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (2, 8, 0.109375)])
def test_mcnemar_is_twice_the_tail_of_a_fair_coin(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(p)


def test_saved_rows_give_the_same_table(
    model: str, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.jsonl"
    options = ["--guide", model, "--max-tokens", "6", "--output", str(output)]
    assert evaluate.main([str(problems), "--strategy", "direct,cot", *options]) == 0
    table = capsys.readouterr().out
    assert evaluate.main(["--from", str(output)]) == 0
    assert capsys.readouterr().out == table
    assert "GAINED" in table
    assert evaluate.main([]) == 2
    (tmp_path / "empty.jsonl").write_text("")
    for path, found in ((problems, "others"), (tmp_path / "empty.jsonl", "none")):
        assert evaluate.main(["--from", str(path)]) == 2
        assert f"expected the rows of an evaluation in {path}, found {found}" in capsys.readouterr().err


def test_a_shuffle_takes_other_problems_and_the_same_ones_again(model: str, tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps({"question": f"What is 1 + {n}?", "answer": n + 1}) + "\n" for n in range(30)))
    output = tmp_path / "rows.jsonl"
    options = ["--strategy", "direct", "--guide", model, "--max-tokens", "2", "--output", str(output)]
    taken = []
    for more in (["--shuffle", "1"], ["--shuffle", "1", "--restart"], ["--shuffle", "2", "--restart"]):
        assert evaluate.main([str(many), "--limit", "5", *options, *more]) == 0
        taken.append(sorted(row["line"] for row in rows(output)))
    assert taken[0] == taken[1] != taken[2]
    assert taken[0] != [1, 2, 3, 4, 5]
    assert len(set(taken[0])) == 5
    assert evaluate.main([str(many), "--limit", "8", *options, "--shuffle", "2"]) == 0
    assert len(rows(output)) == 8  # the first five of the same order were there


def test_a_run_is_what_its_strategy_uses(model: str, problems: Path, tmp_path: Path) -> None:
    """A free answer of the base is the same whatever guides and plans others have."""
    output = tmp_path / "rows.jsonl"
    adapter = str(tiny_adapter(tmp_path / "lora.gguf", Path(model)))
    options = ["--strategy", "cot,sg", "--guide", model, "--max-tokens", "6", "--output", str(output)]
    assert evaluate.main([str(problems), *options]) == 0
    assert evaluate.main([str(problems), *options, "--adapter", adapter, "--plan", "stepwise"]) == 0
    counts = Counter(json.dumps(row["run"], sort_keys=True) for row in rows(output))
    assert sorted((json.loads(run)["strategy"], n) for run, n in counts.items()) == [("cot", 3), ("sg", 3), ("sg", 3)]
    assert all(row["peak_mb"] > 10 for row in rows(output))


def made(model: str, problems: Path, out: Path, *options: str) -> Path:
    """The guidances of a model, as the batch of `solve` writes them."""
    arguments = ["--strategy", "guidance", "--guide", model, "--input", str(problems), "--output", str(out), *options]
    assert solve.main(arguments) == 0
    return out


def test_every_answerer_follows_every_guide(
    model: str, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tiny_adapter(tmp_path / "tuned.gguf", Path(model))
    other = str(tiny_model(tmp_path / "other.gguf", seed=5))
    plain = made(model, problems, tmp_path / "plain.jsonl")
    tuned = made(model, problems, tmp_path / "tuned.jsonl", "--adapter", str(adapter))
    output = tmp_path / "rows.jsonl"
    options = ["--guidance", str(plain), "--guidance", str(tuned), "--answerer", f"{model},{other}"]
    options += ["--strategy", "cot,exact", "--max-tokens", "6", "--output", str(output)]
    capsys.readouterr()
    assert evaluate.main([str(problems), *options]) == 0
    table = capsys.readouterr().out.splitlines()
    shown = [line.split("  ")[0] for line in table[1:7]]
    assert shown == ["cot", "exact along", "exact along [tuned]"] * 2
    got = rows(output)
    assert len(got) == 18
    guides = {path: {row["question"]: row for row in rows(path)} for path in (plain, tuned)}
    for row in got:
        if row["strategy"] == "exact":
            made_by = guides[tuned if "adapter" in row["models"] else plain][row["question"]]
            assert row["usage"]["guide"] == made_by["usage"]["guide"]
            assert row["guidance"] == made_by["guidance"]
            assert row["models"]["guide"] == Path(model).name
            assert row["digests"]["guide"] == made_by["digests"]["guide"]
    assert {row["models"]["answerer"] for row in got} == {Path(model).name, "other.gguf"}
    before = output.read_bytes()
    assert evaluate.main([str(problems), *options]) == 0
    assert output.read_bytes() == before
    assert capsys.readouterr().out.splitlines() == table


def test_guidances_of_one_question_with_different_choices(model: str, tmp_path: Path) -> None:
    problems, output = tmp_path / "two.jsonl", tmp_path / "rows.jsonl"
    two = [{"question": "Which is it?", "answer": "A", "choices": {"A": one, "B": "none"}} for one in ("dog", "whale")]
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in two))
    guidances = made(model, problems, tmp_path / "made.jsonl")
    options = ["--strategy", "sg", "--guidance", str(guidances), "--guide", model, "--max-tokens", "2"]
    assert evaluate.main([str(problems), *options, "--output", str(output)]) == 0
    by_choice = {row["choices"]["A"]: row["guidance"] for row in rows(guidances)}
    assert by_choice["dog"] != by_choice["whale"]
    assert {row["choices"]["A"]: row["guidance"] for row in rows(output)} == by_choice


def test_what_is_read_is_not_written_to(
    model: str, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = problems.read_bytes()
    options = ["--strategy", "direct", "--guide", model, "--output", str(problems), "--restart"]
    assert evaluate.main([str(problems), *options]) == 2
    assert "expected a file of its own" in capsys.readouterr().err
    assert problems.read_bytes() == before


def test_guidances_that_cannot_be_followed(
    model: str, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = made(model, problems, tmp_path / "made.jsonl")
    text = whole.read_text().splitlines(keepends=True)
    other = json.loads(text[0]) | {"strategy": "cot"}
    seeded = json.loads(text[0]) | {"seed": 7}
    files = {
        "fewer": ("".join(text[1:]), "expected a guidance for each problem"),
        "none": ("", "expected guidances, found none"),
        "others": (json.dumps(other) + "\n", "expected a row of strategy guidance, found 'cot'"),
        "mixed": (json.dumps(seeded) + "\n" + "".join(text[1:]), "expected guidances of one guide, found several"),
        "problems": (json.dumps(PROBLEMS[0]) + "\n", "expected a solution as sgft-edge solve writes it"),
    }
    options = ["--strategy", "exact", "--guide", model, "--output", str(tmp_path / "rows.jsonl")]
    for name, (content, complaint) in files.items():
        (tmp_path / name).write_text(content)
        capsys.readouterr()
        assert evaluate.main([str(problems), *options, "--guidance", str(tmp_path / name)]) == 2, name
        assert complaint in capsys.readouterr().err
    assert evaluate.main([str(problems), *options, "--guidance", str(whole), "--given-guidance"]) == 2
    assert evaluate.main([str(problems), *options, "--strategy", "guidance"]) == 2
