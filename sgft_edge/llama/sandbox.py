"""A Jinja sandbox for the chat templates of model files, which come from anywhere.

Jinja's own sandbox keeps a template from private attributes, changes and files, not from endless work. All work is
done by operations (attributes, filters, calls, operators, loops, output): here their operands are weighed first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from typing import Any, NoReturn

from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_MAX_SOURCE = 100_000
"""Longest template source, in characters; the longest that llama.cpp ships has 17 thousand."""

_MAX_OPERAND = 10_000
"""Greatest weight of an operand, so that one operation makes at most some 100 million characters of two.

The heaviest that llama.cpp ships is a default system message of 5.7 thousand characters."""

_MAX_WORK = 1_000_000
"""Greatest weight of all operands of one rendering; the templates that llama.cpp ships take 500 to 50 thousand."""

_OMITTED_FILTERS = frozenset({"format", "random", "striptags", "urlize", "wordwrap"})
"""Filters whose result or time has no bound in the weight of their operands, or that is not always the same."""

_OPERATIONS = (
    nodes.BinExpr,
    nodes.Call,
    nodes.Compare,
    nodes.Concat,
    nodes.Filter,
    nodes.Keyword,
    nodes.Operand,
    nodes.Output,
    nodes.Test,
)


class _Generation(Extension):
    """`{% generation %}`, which marks the assistant's text for training: rendered as its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Opaque(Namespace):
    """`namespace()`, whose text does not show (and so does not multiply) what it holds."""

    def __repr__(self) -> str:
        return "namespace"


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with Hugging Face's functions and a limit on the work of one rendering.

    `today` is what `strftime_now` tells. A template made to waste can still take some seconds and some hundred
    megabytes before it is stopped.
    """

    intercepted_binops = frozenset({"%", "*"})

    def __init__(self, today: date) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        self.filters = {
            **{name: filter_ for name, filter_ in self.filters.items() if name not in _OMITTED_FILTERS},
            "tojson": _tojson,
            "weigh": self._weigh,
        }
        self.globals = {
            "range": range,
            "dict": dict,
            "namespace": _Opaque,
            "raise_exception": _raise_exception,
            "strftime_now": today.strftime,
        }
        self._work_left = _MAX_WORK

    def load(self, source: str) -> Template:
        """Compile a template. What it raises, here and in `render`, can be of any kind."""
        return self.from_string(self._metered(source))

    def render(self, template: Template, **variables: Any) -> str:
        """Render a loaded template; it may do the work of one rendering."""
        self._work_left = _MAX_WORK
        return template.render(**variables)

    def _metered(self, source: str) -> nodes.Template:
        """Parse `source`, with each operand put through the filter `weigh`."""
        if len(source) > _MAX_SOURCE:
            raise SecurityError(f"it is longer than {_MAX_SOURCE} characters")
        tree = self.parse(source)
        operations = list(tree.find_all(_OPERATIONS))
        accesses: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
        loops = list(tree.find_all(nodes.For))
        for node in operations:
            if getattr(node, "dyn_args", None) or getattr(node, "dyn_kwargs", None):
                raise SecurityError("it unpacks arguments, which cannot be weighed")
            for field, value in node.iter_fields():
                if isinstance(value, list):
                    setattr(node, field, [_weighed(item) for item in value])
                else:
                    setattr(node, field, _weighed(value))
            if isinstance(node, nodes.Filter) and node.node is None:  # {% filter upper %}: its operand is a block
                node.node = _weigh(None)
        for access in accesses:
            access.node = _weighed(access.node)
        for loop in loops:
            loop.iter = _weighed(loop.iter)
        return tree

    @pass_context  # and so never evaluated while compiling
    def _weigh(self, context: Context, value: Any) -> Any:
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            value = list(value)
        weight = abs(value) if isinstance(value, int) else self._weight(value)
        self._work_left -= weight + 1
        if weight > _MAX_OPERAND or self._work_left < 0:
            raise SecurityError("it does more work than a chat template needs")
        return value

    def _weight(self, value: Any) -> int:
        """Characters and items of `value`, through all its levels, counted up to the limit."""
        if isinstance(value, str | bytes | range):
            return len(value)
        if not isinstance(value, Collection):
            return 1
        total = 0
        for item in value:
            total += 1 + self._weight(item) + (self._weight(value[item]) if isinstance(value, Mapping) else 0)
            if total > _MAX_OPERAND:
                break
        return total

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("it formats text by a pattern, which can ask for any width")
        if operator == "*" and isinstance(left if isinstance(right, int) else right, list | tuple):
            raise SecurityError("it repeats a list, which can ask for any length")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Any:
        method = super().wrap_str_format(value)
        if method is not None and ":" in value.__self__:
            raise SecurityError("it formats text by a pattern, which can ask for any width")
        return method


def _weigh(operand: nodes.Expr | None) -> nodes.Filter:
    return nodes.Filter(operand, "weigh", [], [], None, None, lineno=operand.lineno if operand else 1)


def _weighed(field: Any) -> Any:
    """The value of a node's field; where it is an expression, put through the filter `weigh`."""
    return _weigh(field) if isinstance(field, nodes.Expr) else field


def _raise_exception(message: str) -> NoReturn:
    raise TemplateRuntimeError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's `tojson`: unlike Jinja's it does not escape for HTML."""
    if indent is not None and indent not in range(9):  # it is taken once a level of each line
        raise SecurityError(f"it indents JSON by {indent!r}, not by up to 8 columns")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
