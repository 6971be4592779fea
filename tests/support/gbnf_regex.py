"""The language of a GBNF grammar as a regex, to match and to sample without llama.cpp."""

import re


def as_regex(grammar: str, rule: str = "root") -> str:
    """A Python regex for a GBNF grammar whose rules don't recurse: the language itself, to sample and to match."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines() if line)

    def convert(body: str) -> str:
        parts = re.findall(r'"(?:\\.|[^"\\])*"|\[[^]]+\]|\{[0-9,]+\}|[a-z][a-z0-9-]*|[()|?*+]', body)
        return "".join(map(part, parts))

    def part(text: str) -> str:
        if text.startswith('"'):
            return f"(?:{re.escape(text[1:-1].encode().decode('unicode_escape'))})"
        return f"(?:{convert(rules[text])})" if text[0].isalpha() else text.replace("(", "(?:")

    return convert(rules[rule])
