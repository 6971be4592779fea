"""A prompt as token ids: the chat template around it, markup and contents tokenized apart."""

from __future__ import annotations

from sgft_edge.llama.model import Model
from sgft_edge.llama.templates import ChatTemplate
from sgft_edge.reasoning.prompts import Prompt


def template_of(model: Model) -> ChatTemplate:
    """The chat template that a model's file carries, or the one that fits its vocabulary. Raises `TemplateError`."""
    has_chatml = len(model.tokenize("<|im_start|>", special=True)) == 1
    return ChatTemplate.for_model(model.chat_template, model.token_text(model.bos), model.eos_text, has_chatml)


def prompt_tokens(model: Model, template: ChatTemplate, prompt: Prompt) -> tuple[list[int], int]:
    """A prompt's token ids, and how many of them come before the question.

    Markup and contents are tokenized apart, so that a control token spelled out in a question is plain text.
    """
    if not prompt.messages:
        ids = model.tokenize(prompt.answer_prefix)
        return [model.bos, *ids] if model.add_bos else ids, 0
    segments = template.render(prompt.messages, prompt.answer_prefix)
    asked = next(content.strip() for role, content in prompt.messages if role == "user")
    question = next(i for i, part in enumerate(segments) if not part.markup and part.text.endswith(asked))
    ids = []
    fixed = 0
    for i, segment in enumerate(segments):
        if i == question:
            fixed = len(ids)
        ids += model.tokenize(segment.text, special=segment.markup)
    if model.add_bos and ids[:1] != [model.bos]:
        ids.insert(0, model.bos)
        fixed += 1
    return ids, fixed
