"""GBNF, the grammars of llama.cpp, for text that `arithmetic.evaluate` reads.

https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sgft_edge.errors import EvaluationError
from sgft_edge.text.arithmetic import PLAIN_NUMBER

FREE_NUMBER = '"-"? [0-9]{1,12} ("." [0-9]{1,6})?'
_OPERANDS = (12, 6, 4, 2)  # of an expression, of a group in it, of a group in that: a decoding always ends


def expression_grammar(end: str, numbers: Sequence[str] | None = None, nothing: str | None = None) -> str:
    """A grammar for one arithmetic expression followed by `end`.

    `numbers` holds the operands to these literals, such as `("16", "0.5")`;
    without them (None or empty) any number of up to 12 digits and 6 decimals
    may stand. `nothing` is a text that may stand instead of all that.
    Whatever the grammar accepts, `evaluate` reads; it may still divide by zero
    or pass the bounds on length and size.

    Raises `EvaluationError` when one of `numbers` is not a plain number.
    """
    for number in numbers or ():
        if not re.fullmatch(rf"-?(?:{PLAIN_NUMBER})", number):
            raise EvaluationError(f"expected numbers to choose operands from, found {number!r}")
    rules = [
        f"root ::= sum0 {gbnf_literal(end)}{f' | {gbnf_literal(nothing)}' if nothing else ''}",
        'operator ::= " "? [-+*/] " "?',
        f"number ::= {' | '.join(map(gbnf_literal, dict.fromkeys(numbers))) if numbers else FREE_NUMBER}",
        *sum_rules("number", group='"(" {sum} ")"'),
    ]
    return "\n".join(rules) + "\n"


def sum_rules(atom: str, group: str) -> list[str]:
    """GBNF rules `sum0`, `sum1`, ...: operands joined by `operator`, each an `atom` or, above the last, a `group`.

    `group` names the sum inside it as `{sum}`.
    """
    rules = []
    for level, operands in enumerate(_OPERANDS):
        operand = f"{atom} | {group.format(sum=f'sum{level + 1}')}" if level + 1 < len(_OPERANDS) else atom
        rules.append(f"sum{level} ::= operand{level} (operator operand{level}){{0,{operands - 1}}}")
        rules.append(f"operand{level} ::= {operand}")
    return rules


def gbnf_literal(text: str) -> str:
    """`text` as a GBNF string literal."""
    escapes = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'
