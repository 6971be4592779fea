"""Text from outside costs time in proportion to its length, whatever is repeated in it."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Sequence

import pytest

from sgft_edge.answers import extraction
from sgft_edge.errors import SgftError
from sgft_edge.evaluation import failures
from sgft_edge.llama.templates import ChatTemplate
from sgft_edge.reasoning import calc, conversation
from sgft_edge.reasoning.exact import Execution
from sgft_edge.reasoning.question import Question
from sgft_edge.text import arithmetic, guidance, markup, numerals, program
from sgft_edge.text.chain import with_exact_values

SIZE = 12_000  # characters; what grows with their square shows at this size already
FLOOR = 0.25  # seconds, below which a ratio is noise
PIECES = (
    "answer (", "the answer is ", "the answer is not ", "answer:", "answer to ", "#### ", "\\boxed{",
    "\\boxed{1}", "\\frac{", "\\frac1", "\\text{", "{", "}", "{}", "(", ")", "[1, ", "(1, ", "$", "**", "* ",
    "__", "`", "```", "~~", "1", "1,", "1.", "1:", "1/", "1 ", "12,345", "1. ", "1. a\n", "1.\n", "\n1) ",
    "- a\n", "a\n", "step ", "step 1", " ", "\t", "\n", " \n", "\xa0", "=", "= ", "1 =", "1 + ", "1+", "1 - ",
    "x", "-", "minus ", "not ", "wait, ", "half ", "a ", "one ", "one hundred ", "million ", "twenty-", "and ",
    "1 and ", "１", "½", "⁵", "。", "答案", "不是", "\nQuestion:", "Problem 1:", "(A) ", "A ", "yes, ", "<", "<<",
    "<a", "|", "| 1 ", "1%", "% of ", "...", "!", "\\", "x=", "def f(", "return ", "print(", "\"\"\"", "#",
    "Xq8vT3mZ1k", "how many ", "and ", "?", "'", "1'", "1_", "1e", "10^", "√",
)  # fmt: skip
CHOICES = {"A": "yes", "B": "a bank account", "C": "12", "D": "(1, 2)"}


class _Asked:
    """As much of a task as the operands of a step are found from."""

    def __init__(self, text: str) -> None:
        self.question = Question(text[:1] + "?")
        self.settings = type("Settings", (), {"operands": "grounded"})()


def _operands(text: str) -> object:
    execution = Execution.__new__(Execution)
    execution._task, execution.steps, execution._values = _Asked(text), [], []  # type: ignore[assignment]
    return execution._operands(text)


def _violations(text: str) -> object:
    return guidance.violations(guidance.Guidance((text, text)), text)


READERS: dict[str, Callable[[str], object]] = {
    "plain": markup.plain,
    "extract": extraction.extract,
    "extract what is cut off": lambda text: extraction.extract(text, whole=False),
    "extract after a claim": lambda text: extraction.extract(f"The answer is 1. {text}"),
    "extract a choice": lambda text: extraction.extract(text, CHOICES),
    "is correct": lambda text: extraction.is_correct(text, text),
    "is reference": extraction.is_reference,
    "numbers": numerals.numbers_in,
    "guidance": guidance.parse,
    "guidance with a step": lambda text: guidance.parse(f"1. {text}"),
    "violations": _violations,
    "operands": _operands,
    "exact values": lambda text: with_exact_values(text, []),
    "calc": calc.value_before,
    "program": program.run,
    "program in a fence": lambda text: program.run(f"```{text}"),
    "expression": arithmetic.evaluate,
    "equations": lambda text: list(failures.equations_in(text)),
    "a problem": conversation.is_problem,
    "a follow-up": lambda text: conversation.question_of(
        [("user", "1 + 2?"), ("assistant", text), ("user", f"and {text}?")]
    ),
    "a conversation": lambda text: conversation.question_of([("user", part) for part in text.split(" ")]),
    "a template": ChatTemplate,
}


def seconds(read: Callable[[str], object], text: str) -> float:
    gc.disable()  # it looks through all that the other tests have left
    try:
        began = time.process_time()
        with contextlib.suppress(SgftError):
            read(text)
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.parametrize("name", READERS)
def test_time_grows_with_the_length_of_the_text(name: str) -> None:
    assert not _slow(name, SIZE, PIECES[::4])


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_time_grows_with_the_length_of_a_text_of_a_megabyte(name: str) -> None:
    assert not _slow(name, 500_000, PIECES)


def _slow(name: str, size: int, pieces: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The texts of twice that size which take more than 2.5 times as long as half of them: seconds for both."""
    read = READERS[name]
    slow = {}
    for piece in pieces:
        for text in (piece, f"{piece} "):
            long = text * (2 * size // len(text))
            if seconds(read, long) > FLOOR:
                half = min(seconds(read, long[: len(long) // 2]) for _ in range(3))
                took = min(seconds(read, long) for _ in range(3))
                if took > max(2.5 * half, FLOOR):
                    slow[text] = (half, took)
    return slow
