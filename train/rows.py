"""Rows of solution guidance data as token ids: the runtime's own prompts, forced texts and tokens, and where to learn.

    guide      the prompt that asks for a plan                 ► the guidance, end of turn
    answerer   the prompt of strategy `exact`, step by step    ► each step's expression
    solver     the same text                                   ► each step's words, and its expression
    program    the prompt of strategy `program`                ► a program, with the steps as comments; end of turn

What the runtime writes itself (values, "Expression:") is read and never learned, and every piece is tokenized apart, as
the runtime does, so that a model is trained on the very ids that it will see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from sgft_edge.errors import EvaluationError, GuidanceError, InputError
from sgft_edge.llama.model import Model
from sgft_edge.llama.templates import ChatTemplate
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.chain import value_after
from sgft_edge.text.guidance import parse
from train.check_sg import Row
from train.programs import program_of

ROLES = ("guide", "answerer", "solver", "program")


@dataclass(frozen=True)
class Example:
    """Token ids of one row. `prompt` is read; of `completion`, those with `learned` are trained on.

    The first `fixed` tokens of the prompt are the same in all rows.
    """

    id: str
    prompt: tuple[int, ...]
    fixed: int
    completion: tuple[int, ...]
    learned: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def end_of_turn(model: Model, template: ChatTemplate) -> int:
    """The token that the template puts after an answer, if generation ends there; else the vocabulary's own."""
    turns = template.render([("user", "1"), ("assistant", "2"), ("user", "3")])
    answer = next(i for i, part in enumerate(turns) if not part.markup and part.text.strip() == "2")
    after = model.tokenize(turns[answer + 1].text, special=True) if answer + 1 < len(turns) else []
    return next((token for token in after if model.ends_generation(token)), model.eos)


class Writer:
    """Turns rows into examples for one model's vocabulary and chat template."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._template = template_of(model)
        self._end = end_of_turn(model, self._template)

    def examples(self, rows: list[Row], role: str) -> list[Example]:
        """Examples of all rows that have what the role needs: expressions, for all but the guide."""
        if role not in ROLES:
            raise InputError(f"role: expected one of {', '.join(ROLES)}, found {role!r}")
        if role == "guide":
            return [self._guide(row) for row in rows]
        examples = []
        for row in rows:
            if row.expressions is not None:
                try:
                    examples.append(self._program(row) if role == "program" else self._execution(row, role == "solver"))
                except (GuidanceError, EvaluationError, ValueError) as e:
                    raise InputError(f"{row.place}: its expressions cannot be carried out: {e}") from e
        return examples

    def _guide(self, row: Row) -> Example:
        prompt, fixed = prompt_tokens(self.model, self._template, prompts.guide(row.question))
        completion = (*self.model.tokenize(row.guidance), self._end)
        return Example(row.id, tuple(prompt), fixed, completion, (True,) * len(completion))

    def _program(self, row: Row) -> Example:
        prompt, fixed = prompt_tokens(self.model, self._template, prompts.program(row.question))
        completion = (*self.model.tokenize(f"{program_of(row)}\n```"), self._end)
        return Example(row.id, tuple(prompt), fixed, completion, (True,) * len(completion))

    def _execution(self, row: Row, learn_steps: bool) -> Example:
        prompt, fixed = prompt_tokens(self.model, self._template, prompts.execute(row.question))
        completion: list[int] = []
        learned: list[bool] = []
        for text, learn in _pieces(row, learn_steps):
            tokens = self.model.tokenize(text)
            completion += tokens
            learned += [learn] * len(tokens)
        return Example(row.id, tuple(prompt), fixed, tuple(completion), tuple(learned))


def _pieces(row: Row, learn_steps: bool) -> Iterator[tuple[str, bool]]:
    """The text after the prompt as `sgft_edge.reasoning.exact` writes it, in the pieces that are tokenized apart.

    A line's end belongs to the words before it, since it is the guide that ends a line; where the words are not
    learned, its place changes nothing.
    """
    assert row.expressions is not None
    steps = parse(row.guidance).steps
    values: list[Fraction] = []
    for number, (step, expression) in enumerate(zip(steps, row.expressions, strict=True), start=1):
        if number > 1:
            yield "\n", False
            yield f"{number}.", learn_steps
        else:
            yield "1.", False
        yield f" {step}", learn_steps
        yield from _expression(expression, learn_steps, values)
    yield "\n", False
    yield prompts.ANSWER, learn_steps


def _expression(expression: str | None, learn_end: bool, values: list[Fraction]) -> Iterator[tuple[str, bool]]:
    newline, rest = prompts.EXPRESSION[0], prompts.EXPRESSION[1:]
    yield newline, learn_end
    yield rest, False
    if expression is None:
        yield prompts.NOTHING, True
        return
    yield f"{expression}{prompts.EQUALS}", True
    values.append(value_after(expression, values))
    yield f" {format_value(values[-1])}", False
