"""The language of programs as a grammar: what it lets through, the runtime runs."""

from __future__ import annotations

from sgft_edge.text.gbnf import FREE_NUMBER, sum_rules

# Holds the body of a function to 24 lines of 4-space-indented assignments and comments that end with a `return`.
PROGRAM_GRAMMAR = "\n".join(
    [
        r'root ::= line{0,23} "    return " sum0 "\n"',
        r'line ::= "    " (name " = " sum0 | "# " [^\n]{1,100}) "\n"',
        r"name ::= [a-z_] [a-z0-9_]{0,39}",
        r'operator ::= " "? ("//" | [-+*/%]) " "?',
        f"number ::= {FREE_NUMBER}",
        *sum_rules(
            "number | name",
            group='("int" | "round")? "(" {sum} ")" | "round(" {sum} ", " [0-9] ")"',
        ),
        "",
    ]
)
