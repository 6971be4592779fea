"""Chat templates: the Jinja source of a GGUF file (`tokenizer.chat_template`), rendered into segments.

A template is a program from a file of unknown origin, and contents are text from anywhere, so the two never
meet: each template is rendered once, when it is loaded, with a marker in the place of each content, and cut at
the markers. `ChatTemplate.render` only puts contents between the pieces. So a content cannot steer the template,
a special token spelled out in a content stays plain text, and a broken template is found before its first use.

The variables, filters and whitespace rules are those of Hugging Face's `apply_chat_template`:
https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, NamedTuple, NoReturn

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from sgft_edge.errors import TemplateError

__all__ = ["ChatTemplate", "Segment"]

PROMPT_DATE = date(2024, 7, 26)
"""What every template takes for today, so that prompts do not change overnight; Llama 3's own default."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}"
)
PLAIN = "{% for message in messages %}{{ message.content + '\\n\\n' }}{% endfor %}"

# Random, with letters of both cases: trimming leaves them whole, and a change of case does not pass unseen.
_MARKER = "Xq8vT3mZ1k{:02d}Sw5Rj0"
_MARKERS = re.compile(r"(Xq8vT3mZ1k\d\dSw5Rj0)")

_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")


class Segment(NamedTuple):
    """A piece of a prompt; special tokens are to be parsed in `markup` only."""

    text: str
    markup: bool


class ChatTemplate:
    """A chat template, for conversations with thinking switched off.

    `source` is Jinja, `bos` and `eos` are the texts of the model's special tokens. Whether a prompt begins with
    `bos` is the template's choice: who tokenizes adds the token where the vocabulary asks for it and it is missing.

    Raises TemplateError if `source` does not parse, fails, does more work than any chat template needs, or does
    not write each content once and unchanged.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self._sandbox = _Sandbox()
        self._bos, self._eos = bos, eos
        with _failures_as_template_errors():
            self._template = self._sandbox.from_string(self._sandbox.parse_metered(source))
        self._skeletons: dict[tuple[str, ...], list[str]] = {}
        self._skeleton(("user",))
        try:
            self._skeleton(("system", "user"))
            self.has_system_role = True
        except TemplateError:  # raise_exception('System role not supported'), or its text is dropped
            self.has_system_role = False

    @classmethod
    def for_model(cls, source: str | None, bos: str, eos: str, has_chatml: bool) -> "ChatTemplate":
        """The template of a model: its own `source`; without one ChatML if its vocabulary has it, else plain text."""
        return cls(source or (CHATML if has_chatml else PLAIN), bos, eos)

    def render(self, messages: Sequence[tuple[str, str]], answer_prefix: str = "") -> tuple[Segment, ...]:
        """The prompt for `messages`, (role, content) pairs that end with the user's, and the forced start of the answer.

        The roles are system (first only), user and assistant. Without a system message the template may put one of
        its own; an empty one silences that. Where the template knows no system role, the first user's turn begins
        with the system's text and a blank line. Contents lose whitespace at their ends, as in many templates; the
        prefix is kept as it is.
        """
        turns = [(role, content.strip()) for role, content in messages]
        if turns[0][0] == "system" and not self.has_system_role:
            system, (role, content), *rest = turns[0][1], *turns[1:]
            turns = [(role, f"{system}\n\n{content}" if system else content), *rest]
        contents = {_MARKER.format(i): content for i, (_, content) in enumerate(turns)}
        pieces = self._skeleton(tuple(role for role, _ in turns))
        segments = [Segment(contents.get(piece, piece), markup=piece not in contents) for piece in pieces]
        segments.append(Segment(answer_prefix, markup=False))
        return tuple(segment for segment in segments if segment.text)

    def _skeleton(self, roles: tuple[str, ...]) -> list[str]:
        """A rendered conversation, split into markup and the markers that stand for its contents."""
        if roles not in self._skeletons:
            markers = [_MARKER.format(i) for i in range(len(roles))]
            self._sandbox.refill()
            with _failures_as_template_errors():
                rendered = self._template.render(
                    messages=[{"role": r, "content": m} for r, m in zip(roles, markers, strict=True)],
                    add_generation_prompt=True,
                    enable_thinking=False,
                    thinking=False,  # what Granite 3 and DeepSeek V3.1 call it
                    date_string=PROMPT_DATE.strftime("%d %b %Y"),
                    tools=None,
                    documents=None,
                    bos_token=self._bos,
                    eos_token=self._eos,
                )
            pieces = _MARKERS.split(_OPEN_THOUGHT.sub("<think>\n\n</think>\n\n", rendered))
            if pieces[1::2] != markers:
                raise TemplateError(
                    f"the chat template must write the messages {', '.join(roles)} once each, unchanged and in order: "
                    "use another model file"
                )
            self._skeletons[roles] = pieces
        return self._skeletons[roles]


@contextmanager
def _failures_as_template_errors() -> Iterator[None]:
    """A template is a program: it can fail in any way, and each becomes a TemplateError of one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise TemplateError(f"the chat template cannot be rendered ({reason}): use another model file") from error


# The sandbox. Jinja's own keeps a template from private attributes, changes and files, not from endless work. All
# work is done by operations (attributes, filters, calls, operators, loops, output): their operands are weighed first.

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


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with Hugging Face's functions and a limit on the work of one rendering.

    A template made to waste can still take some seconds and some hundred megabytes before it is stopped.
    """

    intercepted_binops = frozenset({"%", "*"})

    def __init__(self) -> None:
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
            "strftime_now": PROMPT_DATE.strftime,
        }
        self.refill()

    def refill(self) -> None:
        """Allow the work of one rendering."""
        self._work_left = _MAX_WORK

    def parse_metered(self, source: str) -> nodes.Template:
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


def _tojson(value: Any, indent: int | None = None, **options: Any) -> str:
    """Hugging Face's `tojson`: unlike Jinja's it does not escape for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)
