"""Chat templates: the Jinja source of a GGUF file (`tokenizer.chat_template`), rendered into segments.

A template is a program from a file of unknown origin, and contents are text from anywhere, so the two never
meet: a template is rendered once for each sequence of roles, with a marker in the place of each content, and cut
at the markers. `ChatTemplate.render` only puts contents between the pieces. So a content cannot steer the template,
a special token or a `<think>` spelled out in a content stays plain text, and a template that cannot take a question
is found when it is loaded.

The variables, filters and whitespace rules are those of Hugging Face's `apply_chat_template`:
https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from typing import NamedTuple, Self

from sgft_edge.errors import TemplateError
from sgft_edge.llama.sandbox import TemplateSandbox

PROMPT_DATE = date(2024, 7, 26)
"""What every template takes for today, so that prompts do not change overnight; Llama 3's own default."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{{ '<|im_start|>assistant\\n' }}"
)
PLAIN = "{% for message in messages %}{{ message.content + '\\n\\n' }}{% endfor %}"

# Random, with letters of both cases: trimming leaves them whole, and a change of case does not pass unseen. The
# spaces before a content go with it, since tokenizers join them to its first word.
_MARKER = "Xq8vT3mZ1k{}Sw5Rj0"
_MARKERS = re.compile(r"(?<! )( *)Xq8vT3mZ1k([0-9]+)Sw5Rj0")

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
    not write a question once and unchanged.
    """

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        self._sandbox = TemplateSandbox(PROMPT_DATE)
        self._bos, self._eos = bos, eos
        with _failures_as_template_errors():
            self._template = self._sandbox.load(source)
        self._skeletons: dict[tuple[str, ...], list[tuple[str, int | None]]] = {}
        self._skeleton(("user",))
        try:
            self._skeleton(("system", "user"))
            self.has_system_role = True
        except TemplateError:  # raise_exception('System role not supported'), or its text is dropped
            self.has_system_role = False

    @classmethod
    def for_model(cls, source: str | None, bos: str, eos: str, has_chatml: bool) -> Self:
        """The template of a model: its own `source`; without one ChatML if its vocabulary has it, else plain text."""
        return cls(source or (CHATML if has_chatml else PLAIN), bos, eos)

    def render(self, messages: Sequence[tuple[str, str]], answer_prefix: str = "") -> tuple[Segment, ...]:
        """The prompt for `messages`, (role, content) pairs that end with the user's, and the start of the answer.

        The roles are system (first only), then user and assistant in turn; where the template lets nobody but the user
        begin, an empty message of the user's precedes the assistant's. Without a system message the template may
        put one of its own; an empty one silences that. Where the template knows no system role, the first user's turn
        begins with the system's text and a blank line. Contents lose whitespace at their ends, as in many templates;
        `answer_prefix` is kept as it is.

        Raises TemplateError if the template does not take these roles.
        """
        turns = [(role, content.strip()) for role, content in messages]
        begun = int(turns[0][0] == "system")
        folded = begun and not self.has_system_role
        if turns[begun][0] == "assistant" and (folded or not self._takes_greeting):
            turns.insert(begun, ("user", ""))
        if folded:
            system, (role, content), *rest = turns[0][1], *turns[1:]
            turns = [(role, f"{system}\n\n{content}" if system else content), *rest]
        texts = [*(content for _, content in turns), answer_prefix]
        pieces = self._skeleton(tuple(role for role, _ in turns))
        segments = (Segment(t, markup=True) if i is None else Segment(t + texts[i], markup=False) for t, i in pieces)
        return tuple(segment for segment in segments if segment.text)

    @cached_property
    def _takes_greeting(self) -> bool:
        """Whether the assistant may begin."""
        try:
            self._skeleton(("assistant", "user"))
        except TemplateError:  # raise_exception('Conversation roles must alternate user/assistant/...')
            return False
        return True

    def _skeleton(self, roles: tuple[str, ...]) -> list[tuple[str, int | None]]:
        """A rendered conversation without its contents: markup with None, spaces with the index of what follows them.

        The start of the answer has the last index.
        """
        if roles not in self._skeletons:
            with _failures_as_template_errors():
                rendered = self._sandbox.render(
                    self._template,
                    messages=[{"role": role, "content": _MARKER.format(i)} for i, role in enumerate(roles)],
                    add_generation_prompt=True,
                    enable_thinking=False,
                    thinking=False,  # what Granite 3 and DeepSeek V3.1 call it
                    date_string=PROMPT_DATE.strftime("%d %b %Y"),
                    tools=None,
                    documents=None,
                    bos_token=self._bos,
                    eos_token=self._eos,
                )
            prompt = _OPEN_THOUGHT.sub("<think>\n\n</think>\n\n", rendered) + _MARKER.format(len(roles))
            pieces: list[tuple[str, int | None]] = []
            end = 0
            for match in _MARKERS.finditer(prompt):
                pieces += [(prompt[end : match.start()], None), (match[1], int(match[2]))]
                end = match.end()
            if sorted(i for _, i in pieces if i is not None) != list(range(len(roles) + 1)):
                raise TemplateError(
                    f"the chat template must write each message of {', '.join(roles)} once and unchanged: "
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
