"""Proof that what was exported is what was trained: token ids, logits, the adapter's effect, the cost of quantization.

Every function compares the finished file, read by llama.cpp, with what transformers and PEFT compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import kl_div, nll_loss

from convert.base import Base
from convert.logits import GgufModel, Logits
from convert.proof import Check, Limits, Quantized
from convert.quantize import contents, describe_types
from convert.samples import Sample
from convert.tokenizer_files import SPACE, load_tokenizer
from sgft_edge.llama.model import Model
from sgft_edge.llama.templates import ChatTemplate
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question

HARD_STRINGS = (
    "",
    " ",
    "\n",
    "\n\n\n",
    "\t tab\ttab",
    "Hello, world!",
    " leading and trailing ",
    "two  spaces   three    four",
    "3 * 12 = 36; 0.5 + .25 - 1,000,000.00",
    "1 22 333 4444 55555 123456789012",
    "$5.00 €7,50 £3 ¥100 50% 1/2",
    "can't won't it's I'LL we'VE O'Neil's",
    "snake_case camelCase SHOUTING kebab-case",
    "def f(x):\n    return x ** 2  # a comment\n",
    "a\r\nb\rc",
    "“curly” ‘quotes’ — dashes – and … dots",
    "naïve café Ångström Straße São Paulo",
    "Привет, мир! Сколько будет 2+2?",
    "你好，世界。三加四等于几？",
    "日本語のテキストと カタカナ",
    "안녕하세요 세계",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया १२३",
    "½ ⅓ ² ³ ₂ √ × ÷ ≤ ≠ ∑",
    "🙂 👍🏽 👩‍👩‍👧 🇩🇪",
    "zero\u200bwidth\u00a0space",
    "x" * 100,
    "!?!?...;;;:::",
    "<b>not a tag</b> &amp; {json: [1, 2]}",
    "https://example.org/a?b=c&d=%20e#f",
    "1. Find the total number of pens.\n2. Divide it by 4.",
    "\n Expression: 3 * 12 = 36",
    "The answer is 42.",
)
"""Texts that tokenizers split in different ways where one is not the other's twin. All are in Unicode's form NFC:
some tokenizers of transformers bring a text into that form first, llama.cpp does not."""

_CHATS = (
    prompts.guide(Question("A shop sells 5 bikes for 120 dollars each. What does it earn?")),
    prompts.execute(Question("Is a whale a fish?", {"A": "yes", "B": "no"})),
    prompts.follow(Question("What is 2 + 2?"), "1. Find the first number.\n2. Add the second."),
    prompts.cot(Question("  Spaces around, und Umlaute: äöü ½?  ")),
)


def relative_error(found: Logits, expected: Logits) -> float:
    """Norm of the difference over the norm of the expected logits about their mean, both (positions, n_vocab)."""
    spread = expected - expected.mean(-1, keepdims=True)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(spread))


def check_tokens(base: Base, gguf_file: Path) -> list[Check]:
    """(a) The training tokenizer and the file have equal tokens, and give equal ids for hard strings and prompts."""
    model = Model(gguf_file, vocab_only=True)
    try:
        if base.is_gguf:
            theirs = Model(base.path, vocab_only=True)
            try:
                strings, chats = _ids_of(theirs, template_of(theirs))
                vocabulary = [theirs.token_text(i) for i in range(theirs.n_vocab)]
            finally:
                theirs.close()
        else:
            strings, chats, vocabulary = _ids_of_folder(base.path)
        tokens = [model.token_text(i) for i in range(model.n_vocab)]
        ours, our_chats = _ids_of(model, template_of(model))
    finally:
        model.close()
    wrong = [i for i, (own, token) in enumerate(zip(tokens, vocabulary, strict=False)) if token not in ("", own)]
    equal = len(vocabulary) - len(wrong)
    found = f"{equal} of {len(vocabulary)} equal" + (f", not token {wrong[0]}" if wrong else "")
    return [
        Check("tokens", not wrong and len(tokens) >= len(vocabulary), found, "all equal"),
        _equal("token ids of hard strings", HARD_STRINGS, ours, strings),
        _equal("token ids of chats", [chat.messages[-1][1] for chat in _CHATS], our_chats, chats),
    ]


def _ids_of(model: Model, template: ChatTemplate) -> tuple[list[list[int]], list[list[int]]]:
    strings = [model.tokenize_document(text) for text in HARD_STRINGS]
    return strings, [prompt_tokens(model, template, chat)[0] for chat in _CHATS]


def _ids_of_folder(folder: Path) -> tuple[list[list[int]], list[list[int]], list[str]]:
    """Of hard strings and of chats; and the tokens, empty where there is none."""
    tokenizer = load_tokenizer(folder)
    strings = [tokenizer.encode(text) for text in HARD_STRINGS]
    chats = [_chat_ids(tokenizer, chat) for chat in _CHATS] if tokenizer.chat_template else []
    ids: dict[str, int] = tokenizer.get_vocab()
    vocabulary = [""] * (max(ids.values()) + 1)
    for token, i in ids.items():
        vocabulary[i] = token
    for i, added in tokenizer.added_tokens_decoder.items():
        vocabulary[i] = added.content.replace(SPACE, " ") if not added.special else added.content
    return strings, chats, vocabulary


def _chat_ids(tokenizer: Any, prompt: prompts.Prompt) -> list[int]:
    """What transformers makes of a conversation; where the template knows no system role, as our templates put it."""
    messages = [{"role": role, "content": content.strip()} for role, content in prompt.messages]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception:  # noqa: BLE001 - the template's own raise_exception, of any kind
        system, asked, *rest = messages
        joined = {"role": "user", "content": f"{system['content']}\n\n{asked['content']}"}
        text = tokenizer.apply_chat_template([joined, *rest], tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    bos = tokenizer.bos_token_id
    if ids[:1] != [bos] and tokenizer.encode("")[:1] == [bos]:
        ids.insert(0, bos)
    return ids


def _equal(name: str, texts: Sequence[str], found: list[list[int]], expected: list[list[int]]) -> Check:
    wrong = [text for text, a, b in zip(texts, found, expected, strict=False) if a != b]
    equal = f"{len(expected) - len(wrong)} of {len(expected)} equal"
    return Check(name, not wrong, equal + (f", not {wrong[0]!r}" if wrong else ""), "all equal")


def check_logits(name: str, found: Sequence[Logits], expected: Sequence[Logits], limit: float) -> Check:
    """(b) Logits of a file against those of transformers on the same ids."""
    ours, theirs = np.concatenate(found), np.concatenate(expected)
    error = relative_error(ours, theirs)
    agreement = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    largest = float(np.abs(ours - theirs).max())
    text = f"relative error {error:.1e}, largest {largest:.1e}, top-1 agreement {agreement:.3f}"
    return Check(name, error <= limit, text, f"relative error at most {limit:g}")


def check_change(adapted: Sequence[Logits], base: Sequence[Logits], limit: float) -> Check:
    """(c) The adapter does something."""
    change = relative_error(np.concatenate(adapted), np.concatenate(base))
    return Check(
        "the adapter changes the base", change >= limit, f"relative change {change:.1e}", f"at least {limit:g}"
    )


def check_adapter(
    name: str, found: Sequence[Logits], adapted: Sequence[Logits], base: Sequence[Logits], limit: float
) -> Check:
    """(c) A file with the adapter agrees with PEFT, and is nearer to it than to the base alone."""
    check = check_logits(name, found, adapted, limit)
    to_base = relative_error(np.concatenate(found), np.concatenate(base))
    to_adapted = relative_error(np.concatenate(found), np.concatenate(adapted))
    text = f"{check.found}; {to_base:.1e} from the base alone"
    return Check(name, check.passed and to_adapted < to_base, text, f"{check.expected}, and less than from the base")


def compare_quantized(
    reference: Path,
    files: Sequence[tuple[str, Path]],
    samples: Sequence[Sample],
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[Quantized], float, int]:
    """(d) Each (type, file) against the unquantized file, side by side on the same positions.

    Returns the results, the reference's perplexity and how many tokens counted. All files are mapped into memory at
    once, since the reference's logits are too many to keep.
    """
    truth = GgufModel(reference)
    opened: list[GgufModel] = []
    try:
        for _, path in files:
            opened.append(GgufModel(path))
        sums = np.zeros((len(files), 3))
        own, positions = 0.0, 0
        for sample in samples:
            targets = torch.tensor(sample.tokens[sample.start :])
            expected = _log_probabilities(truth, sample)
            own += float(nll_loss(expected, targets, reduction="sum"))
            positions += len(targets)
            for i, model in enumerate(opened):
                found = _log_probabilities(model, sample)
                divergence = float(kl_div(found, expected, reduction="sum", log_target=True))
                agreed = int((expected.argmax(-1) == found.argmax(-1)).sum())
                sums[i] += divergence, agreed, float(nll_loss(found, targets, reduction="sum"))
            advance()
        prompt = samples[0].tokens[: samples[0].start]
        results = [
            _quantized(type_name, path, sums[i] / positions, model.greedy(prompt, 48))
            for i, ((type_name, path), model) in enumerate(zip(files, opened, strict=True))
        ]
        return results, float(np.exp(own / positions)), positions
    finally:
        for model in (truth, *opened):
            model.close()


def _quantized(type_name: str, path: Path, means: np.ndarray, sample: str) -> Quantized:
    what = contents(path)
    kld, agreement, surprise = (float(value) for value in means)
    return Quantized(
        path.name,
        type_name,
        what.bytes,
        what.types,
        what.bits_per_weight,
        kld,
        agreement,
        float(np.exp(surprise)),
        sample,
    )


def check_quantized(result: Quantized, limits: Limits) -> Check:
    """Whether a quantized file is still near enough to the model that it was made from."""
    passed = result.kld <= limits.max_kld and result.agreement >= limits.min_agreement
    found = f"KLD {result.kld:.4f}, top-1 agreement {result.agreement:.3f} ({describe_types(result.types)})"
    expected = f"KLD at most {limits.max_kld:g}, agreement at least {limits.min_agreement:g}"
    return Check(f"{result.type} against the unquantized", passed, found, expected)


def _log_probabilities(model: GgufModel, sample: Sample) -> torch.Tensor:
    """Of every token at each position of what is to be written, shape (positions, n_vocab)."""
    logits = torch.from_numpy(model.logits(sample.tokens[:-1], sample.start - 1))
    return logits.log_softmax(-1)
