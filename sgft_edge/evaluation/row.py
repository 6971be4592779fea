"""A row of an evaluation: what one run made of one problem, as JSON keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict


class Run(TypedDict):
    """What must be equal for rows to belong to one run: the settings, and the files that the strategy uses.

    `plan` and `operands` stand where the strategy has them, `auto` is what it may choose, for choices last. `along`
    tells whose guidances were followed.
    """

    strategy: str
    given_guidance: bool
    digests: Mapping[str, str]
    sampling: NotRequired[Mapping[str, Any]]
    max_tokens: NotRequired[int]
    votes: NotRequired[int]
    plan: NotRequired[str]
    operands: NotRequired[str]
    auto: NotRequired[Sequence[str]]
    along: NotRequired[Mapping[str, Any]]


class StepRow(TypedDict):
    """A `solution.Step`."""

    text: str
    expression: str | None
    value: str | None


class Row(TypedDict):
    """The problem's line and reference answer, and a `Solution` or the `error` in its place.

    `wall_seconds` is this problem's share of the time of the run, `peak_mb` the process's peak memory by then in MB of
    10**6 bytes, `usage` counts as `Usage` does, by role.
    """

    line: int
    reference: str
    id: str | None
    question: str
    choices: Mapping[str, str]
    correct: bool
    run: Run
    wall_seconds: float
    peak_mb: NotRequired[float]  # older rows have none
    error: NotRequired[str]
    strategy: NotRequired[str]
    why: NotRequired[str]
    solved_by: NotRequired[str]
    notes: NotRequired[Sequence[str]]
    guidance: NotRequired[Sequence[str]]
    steps: NotRequired[Sequence[StepRow]]
    text: NotRequired[str]
    answer: NotRequired[str | None]
    votes: NotRequired[Mapping[str, int]]
    truncated: NotRequired[bool]
    seed: NotRequired[int]
    usage: NotRequired[Mapping[str, Mapping[str, float]]]
    seconds: NotRequired[float]
    models: NotRequired[Mapping[str, str]]
    digests: NotRequired[Mapping[str, str]]
    device: NotRequired[str]
    offloaded_layers: NotRequired[int]


Rows = Sequence[Row]
