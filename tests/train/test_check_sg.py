"""The checks of solution guidance data: each fault is found by its name, and sound rows have none."""

import json
from pathlib import Path
from typing import Any

import pytest

from sgft_edge.errors import InputError
from train.check_sg import check, main, read_sg

REPOSITORY = Path(__file__).parents[2]
DATA = sorted((REPOSITORY / "train" / "data").glob("*.jsonl"))
SOUND: dict[str, Any] = {
    "id": "bikes",
    "question": "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?",
    "guidance": "1. Find the money from all bikes.\n2. Find what is left after the parts.",
    "expressions": ["5 * 120", "600 - 75"],
    "answer": "525",
}
CHOICES: dict[str, Any] = {
    "id": "light",
    "question": "Where does a person look for a pen?",
    "choices": {"A": "desk drawer", "B": "lake", "C": "TV"},
    "guidance": "1. Consider what a pen is used for.\n2. Choose the place where people write.",
    "answer": "A",
}
WORDS = "Find the number of all the bikes that the shop on the corner of the long street sells"


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def faults(path: Path, *rows: dict[str, Any], against: tuple[Path, ...] = ()) -> list[tuple[str, str]]:
    """Kind and detail of all faults."""
    count, found = check([write(path, *rows)], against)
    assert count == len(rows)
    return [(fault.kind, fault.detail) for fault in found]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_the_shipped_data_have_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(DATA) == 5
    assert main([str(path) for path in DATA]) == 0
    assert capsys.readouterr().out == "8750 rows, 8750 without fault, 0 with\n"


def test_one_step_is_enough(file: Path) -> None:
    assert faults(file, SOUND | {"guidance": "1. Take the parts.", "expressions": ["5 * 120 - 75"]}) == []


def test_sound_rows_have_no_fault(file: Path) -> None:
    assert faults(file, SOUND, CHOICES) == []


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        ({"guidance": "1. Find 5 * 120.\n2. Take the parts away."}, "arithmetic", "'5 * 120"),
        ({"guidance": "1. Find the money, = all.\n2. It is =600 in all."}, "arithmetic", "'=600'"),
        ({"guidance": "1. Find the money of 9 bikes.\n2. Take the parts away."}, "foreign number", "found 9"),
        ({"guidance": "1. Find the money.\n2. You reach 525 dollars."}, "answer given away", "'525'"),
        (
            {"answer": "1,525", "guidance": "1. Add.\n2. Say 1525.", "expressions": None},
            "answer given away",
            "1,5",
        ),
        ({"answer": "-525", "guidance": "1. Multiply.\n2. Say 525.", "expressions": None}, "answer given away", "-525"),
        ({"guidance": "Multiply and then subtract."}, "form", "found none"),
        ({"guidance": "\n".join(f"{n}. Multiply." for n in range(1, 8))}, "form", "found 7"),
        ({"guidance": "1) Multiply.\n2) Subtract."}, "form", "'1. ...'"),
        ({"guidance": "Plan:\n1. Multiply.\n2. Subtract."}, "form", "nothing else"),
        ({"guidance": "1. Multiply.\n2. Subtract.\n"}, "form", "nothing else"),
        ({"guidance": "\n".join(f"{n}. Subtract." for n in range(1, 8)), "expressions": None}, "form", "found 7"),
        ({"guidance": f"1. {WORDS} {WORDS}.\n2. Subtract."}, "length", "step 1: expected at most 34 words, found 36"),
        (
            {"guidance": "\n".join(f"{n}. {WORDS} {WORDS[:72]}." for n in range(1, 6)), "expressions": None},
            "length",
            "expected at most 130 words",
        ),
        ({"expressions": ["5 * 120", "600 - 74"]}, "expressions", "lead to 526, the answer is 525"),
        ({"expressions": ["5 * 120"]}, "expressions", "1 expressions for 2 steps"),
        ({"expressions": ["5 * 120", "600 - 75", None]}, "expressions", "3 expressions for 2 steps"),
        ({"expressions": ["5 * 120", "600 / 0"]}, "expressions", "'600 / 0'"),
        ({"expressions": ["five", "600 - 75"]}, "expressions", "'five'"),
        ({"expressions": [None, None]}, "expressions", "found none"),
        ({"answer": "many"}, "expressions", "found 'many'"),
        ({"answer": None}, "expressions", "found None"),
    ],
)
def test_each_fault_of_a_row(file: Path, change: dict[str, Any], kind: str, detail: str) -> None:
    found = faults(file, SOUND | change)
    assert any(name == kind and detail in text for name, text in found), found
    strangers = {name for name, _ in found} - {kind, "foreign number"}  # an answer in digits is a foreign number too
    assert not strangers, found


@pytest.mark.parametrize("told", ["desk drawer", "Desk Drawer"])
def test_a_choice_given_away_by_its_text(file: Path, told: str) -> None:
    row = CHOICES | {"guidance": f"1. Consider what a pen is for.\n2. People keep it in a {told}."}
    assert faults(file, row) == [("answer given away", "the guidance names 'desk drawer'")]


def test_a_choice_that_the_question_names_or_that_is_wrong_is_no_fault(file: Path) -> None:
    asked = CHOICES | {
        "question": "Is a desk drawer or a lake the place for a pen?",
        "guidance": "1. Consider what a desk drawer holds.\n2. Choose.",
    }
    wrong = CHOICES | {"guidance": "1. Consider why no one writes in a lake.\n2. Choose where people write."}
    part = CHOICES | {"answer": "B", "guidance": "1. Think of flakes of paint.\n2. Choose where people write."}
    for row in (asked, wrong, part):
        assert faults(file, row) == []


def test_list_markers_give_no_answer_away(file: Path) -> None:
    """Nor is a number of the question a secret."""
    two = SOUND | {"answer": "2", "expressions": ["5 - 3", "2"]}
    given = SOUND | {"answer": "5", "expressions": ["5", "5"], "guidance": "1. Find the 5 bikes.\n2. Say so."}
    assert faults(file, two) == []
    assert faults(file, given) == []


def test_a_step_may_have_no_expression(file: Path) -> None:
    assert faults(file, SOUND | {"expressions": ["5 * 120 - 75", None]}) == []
    assert faults(file, {key: value for key, value in SOUND.items() if key != "expressions"}) == []


def test_near_copies(file: Path) -> None:
    """Also across files; the same words in another order are another problem."""
    copy = SOUND | {"id": "copy", "question": SOUND["question"].replace("What", "How much")}
    other = SOUND | {"id": "other", "question": " ".join(reversed(SOUND["question"].split()))}
    expected = [("near-duplicate", "reads like rows.jsonl:1 (bikes)")]
    assert faults(file, SOUND, other, copy) == expected
    second = write(file.with_name("second.jsonl"), copy)
    _, found = check([write(file, SOUND), second])
    assert [(fault.kind, fault.detail) for fault in found] == expected
    assert found[0].place == "second.jsonl:1 (copy)"


def test_overlap_with_a_test_set(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"question": SOUND["question"].upper(), "answer": "525"}
    known = write(file.with_name("known.jsonl"), {"question": "How many eggs does a hen lay in 5 weeks?"}, problem)
    assert faults(file, CHOICES, SOUND, against=(known,)) == [("overlap with a test set", "reads like known.jsonl:2")]
    assert main([str(file)]) == 0
    assert main([str(file), "--against", str(known)]) == 1
    out = capsys.readouterr().out
    assert "overlap with a test set: 1\n  rows.jsonl:2 (bikes): reads like known.jsonl:2\n" in out
    assert out.endswith("2 rows, 1 without fault, 1 with\n")


# The command


def test_a_report_has_examples_of_each_fault(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stray = [SOUND | {"id": f"r{n}", "question": f"{n} {n + 1} {n + 2} {n + 3}?", "answer": "7"} for n in range(20, 25)]
    assert main([str(write(file, *stray, CHOICES | {"guidance": "No."}))]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "expressions: 5"
    assert [line.split(":")[1] for line in out[1:4]] == ["1 (r20)", "2 (r21)", "3 (r22)"]
    assert out[4] == "form: 1"
    assert out[5].startswith("  rows.jsonl:6 (light): ")
    assert out[6] == "6 rows, 0 without fault, 6 with"


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All faults are there, not only examples."""
    write(file, *(SOUND | {"id": str(n), "answer": str(n), "expressions": None} for n in range(6)))
    assert main([str(file), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 6
    assert len(report["faults"]) == 15
    assert report["faults"][0] == {
        "kind": "near-duplicate",
        "place": "rows.jsonl:2 (1)",
        "detail": "reads like rows.jsonl:1 (0)",
    }
    assert main([str(write(file, SOUND)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 1, "faults": []}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ("{}", "'question'"),
        ('{"question": 5}', "'question'"),
        ({"question": "How many?"}, "expected a text 'guidance', found None"),
        ({"question": "How many?", "guidance": "  "}, "expected a text 'guidance'"),
        ({"question": "How many?", "guidance": ["1. Count."]}, "expected a text 'guidance'"),
        ({"question": " ", "guidance": "1. Count."}, "found nothing"),
        (SOUND | {"expressions": "5 * 120"}, "'expressions' as a list"),
        (SOUND | {"expressions": [600, 525]}, "'expressions' as a list"),
        (SOUND | {"choices": 7}, "choices: expected texts"),
        (SOUND | {"choices": {"A": "yes", "B": None}}, "choices: expected letters"),
    ],
)
def test_bad_rows_are_named_by_file_and_line(
    file: Path, row: dict[str, Any] | str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(write(file, SOUND, "", row, CHOICES))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file}: line 3: " in line
    assert reason in line


def test_files_with_nothing_in_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="found none"):
        read_sg(write(file, "", ""))
    assert main([str(file)]) == 2
    assert main([str(file.with_name("missing.jsonl"))]) == 2
    assert main([]) == 2
    assert main([str(write(file, SOUND)), "--against", str(file.with_name("missing.jsonl"))]) == 2
    file.write_bytes(b'{"question": "\xff"}\n')
    assert main([str(file)]) == 2
    assert f"{file}: line 1: expected UTF-8" in capsys.readouterr().err


def test_a_test_set_with_nothing_in_it_is_refused(file: Path) -> None:
    """Else a wrong file would pass for a set that does not overlap."""
    assert main([str(write(file, SOUND)), "--against", str(write(file.with_name("empty.jsonl")))]) == 2


def test_an_answer_that_is_no_choice(file: Path) -> None:
    assert faults(file, CHOICES | {"answer": "D"}) != []
