"""The sandbox of chat templates: what it lends them, and hostile templates."""

import time

import pytest

from sgft_edge.errors import TemplateError
from sgft_edge.llama.templates import ChatTemplate

CONTENT = "{{ messages[-1].content }}"


def prompt(source: str) -> str:
    """What stands before the question, and the question in guillemets."""
    segments = ChatTemplate(source, "<s>", "</s>").render([("user", "What is 2 + 3?")])
    return "".join(text if markup else f"«{text}»" for text, markup in segments)


def test_functions_of_hugging_face() -> None:
    assert prompt("{% generation %}a{% endgeneration %}" + CONTENT).startswith("a«")
    assert prompt("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}" + CONTENT) == (
        "01«What is 2 + 3?»"
    )
    assert prompt("{{ {'ä': '<&>'} | tojson }}" + CONTENT).startswith('{"ä": "<&>"}')
    assert prompt("{{ {'b': 'ä', 'a': 1} | tojson(true, 1, sort_keys=true) }}" + CONTENT).startswith(
        '{\n "a": 1,\n "b": "\\u00e4"\n}'
    )
    assert prompt("{{ '{}-{}'.format('a', 1) }}" + CONTENT).startswith("a-1")
    assert prompt("{% if tools is none and documents is none %}\n  {{ eos_token }}\n{% endif %}\n" + CONTENT) == (
        "  </s>\n«What is 2 + 3?»"
    )


# Each fragment is followed by the user's message, so nothing but the fragment can be the failure.
HOSTILE = {
    "syntax": "{% for %}",
    "unclosed": "{% if true %}",
    "unknown filter": "{{ 'a' | nothing }}",
    "unknown name": "{{ nothing.at.all }}",
    "raises on purpose": "{{ raise_exception('first line\nsecond line') }}",
    "division": "{{ 1 / 0 }}",
    "include": "{% include '/etc/passwd' %}",
    "private attribute": "{{ ''.__class__.__mro__ }}",
    "change": "{{ messages.append(1) }}",
    "range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "loops over a name": "{% set r = range(9999) | list %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
    "loops over a generator": "{% set r = range(999) | map('string') %}"
    "{% for i in r | list %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for i in 'ab' recursive %}{% if loop.depth < 50 %}{{ loop('ab') }}{% endif %}{% endfor %}",
    "macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro tree": "{% macro f(n) %}{% if n %}{% set a = f(n - 1) ~ f(n - 1) %}{% endif %}{% endmacro %}{{ f(50) }}",
    "block without end": "{% block b %}{{ self.b() }}{% endblock %}",
    "repeated text": "{{ 'a' * 10 ** 9 }}",
    "repeated list": "{% set x = [0] * 10 ** 9 %}",
    "doubled text": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubled block": "{% set ns = namespace(s='a') %}{% for i in range(60) %}"
    "{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = s %}{% endfor %}",
    "doubled list": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
    "{{ ns.s }}",
    "indented JSON": "{{ [1] | tojson(indent=9999) }}",
    "JSON indented by a text": "{{ [1] | tojson(indent='a' * 9999) }}",
    "nested list": "{% set ns = namespace(s='a') %}{% for i in range(9000) %}{% set ns.s = [ns.s] %}{% endfor %}"
    "{{ ns.s }}",
    "replacement": "{% set a = 'a' * 9999 %}{{ a.replace('a', a).replace('a', a) }}",
    "filtered block": "{% filter replace('a', 'b' * 9999) %}" + "a" * 20000 + "{% endfilter %}",
    "padding": "{{ 'a'.ljust(10 ** 9) }}",
    "unpacked padding": "{{ 'a'.ljust(*[1000000000]) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "format operator": "{{ '%1000000000d' % 1 }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "power": "{% set x = 10 ** 10 ** 10 %}",
    "squares": "{% set ns = namespace(x=9999) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "output": "{% for i in range(9999) %}" + "a" * 9999 + "{% endfor %}",
    "nested brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "nested blocks": "{% for i in 'a' %}" * 40 + "{% endfor %}" * 40,
    "length": "a" * 200_000,
}


@pytest.mark.parametrize("fragment", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_are_stopped(fragment: str) -> None:
    start = time.monotonic()
    with pytest.raises(TemplateError, match="the chat template cannot be rendered") as caught:
        ChatTemplate(fragment + CONTENT)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_namespace_does_not_show_what_it_holds() -> None:
    doubled = "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns }}"
    assert prompt(doubled + CONTENT).startswith("namespace«")
