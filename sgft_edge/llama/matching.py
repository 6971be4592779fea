"""JSON schemas as masks over a model's vocabulary, by llguidance: https://github.com/guidance-ai/llguidance.

It is loaded once a schema is asked for. Whatever a schema asks of it ends: an error, where a limit is passed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgft_edge.errors import GrammarError, InputError, SgftError
from sgft_edge.reasoning.schema import JsonSchema

if TYPE_CHECKING:
    import llguidance

    from sgft_edge.llama.model import Model

_KEPT = 16  # compiled schemas that are kept, for who asks again
_LIMITS = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 20_000,
    "step_max_items": 10_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 20_000,  # of 1 to 2 kB
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
_OPTIONS = {  # one space, or a new line and what indents it: a small model would go on with white space for ever
    "whitespace_flexible": True,
    "whitespace_pattern": r" |\n {0,16}",
    "item_separator": ",",
    "key_separator": ":",
    "lenient": False,
    "coerce_one_of": True,
}


class Matchers:
    """Holds texts of one model to JSON schemas; may be used from any thread while the model is open."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._ends = np.zeros(model.n_vocab, bool)  # the tokens that end a text
        self._compiled: OrderedDict[JsonSchema, llguidance.LLMatcher] = OrderedDict()

    def hold(self, schema: JsonSchema) -> None:
        """Compile a schema. Raises `InputError` where it cannot be held, `SgftError` without llguidance."""
        self._prototype(schema)

    def begin(self, schema: JsonSchema) -> Matcher:
        """A text that is to fit a schema, nothing of it written. Raises as `hold`."""
        return Matcher(self._prototype(schema).deep_copy(), self._ends)

    def _prototype(self, schema: JsonSchema) -> llguidance.LLMatcher:
        with self._lock:
            found = self._compiled.get(schema)
        if found is None:
            found = compiled(self._vocabulary(), schema)  # outside the lock: the engine shall not wait for another one
        with self._lock:
            self._compiled[schema] = found
            self._compiled.move_to_end(schema)
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return found

    def _vocabulary(self) -> llguidance.LLTokenizer:
        with self._making:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._model)
                self._ends[self._tokenizer.eos_tokens] = True
            return self._tokenizer


class Matcher:
    """One text under a schema; closed by nothing but being forgotten."""

    def __init__(self, matcher: llguidance.LLMatcher, ends: NDArray[np.bool_]) -> None:
        self._matcher = matcher
        self._ends = ends
        self._mask: NDArray[np.bool_] | None = None  # of where the text now stands

    def allowed(self, tokens: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which of the tokens may come next, shape (len(tokens),). Raises `GrammarError`.

        One token is looked at alone, which takes microseconds; several are found in a mask of the whole vocabulary.
        """
        chosen = np.asarray(tokens)
        if len(tokens) == 1:
            fits = np.array([self._matcher.validate_tokens([int(tokens[0])]) == 1])
        else:
            fits = self._whole_mask()[chosen]
        self._check()
        return np.where(self._ends[chosen], self._matcher.is_accepting(), fits)

    def accept(self, token: int) -> None:
        """Go on after a token. Raises `GrammarError` for one that does not fit."""
        self._mask = None
        if not self._ends[token]:
            fits = self._matcher.consume_token(token)
            self._check()
            if not fits:
                raise GrammarError(f"the schema has no place for token {token} here")

    def close(self) -> None:
        """Nothing is to be freed."""

    def _whole_mask(self) -> NDArray[np.bool_]:
        if self._mask is None:
            n = len(self._ends)
            bits = np.zeros((n + 31) // 32, np.uint32)
            if not self._matcher.is_stopped():
                self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            self._mask = np.unpackbits(bits.view(np.uint8), count=n, bitorder="little").astype(bool)
        return self._mask

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            raise GrammarError(f"the schema asks for more work than is done for one token ({reason}): simplify it")


def compiled(tokenizer: llguidance.LLTokenizer, schema: JsonSchema) -> llguidance.LLMatcher:
    """A schema's automaton at its beginning. Raises `InputError`."""
    import llguidance

    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema.text, overrides=_OPTIONS)  # type: ignore[arg-type]
        matcher = llguidance.LLMatcher(
            tokenizer,
            grammar,
            log_level=0,
            limits=llguidance.LLParserLimits(**_LIMITS),  # type: ignore[arg-type]
        )
        reason = matcher.get_error()
    except ValueError as e:
        reason = str(e)
    if reason:
        raise InputError(f"schema: expected one that can be held, found one that cannot: {_first_line(reason)}")
    return matcher


def _tokenizer(model: Model) -> llguidance.LLTokenizer:
    """The vocabulary as llguidance takes it, without slices: these double its memory for masks that are seldom made."""
    try:
        import llguidance
    except ImportError as e:
        raise SgftError("JSON schemas need llguidance: pip install 'sgft-edge[serve]'") from e
    ends = model.end_tokens()
    if not ends:
        raise InputError("schema: expected a model whose vocabulary has an end of text, found none: use another")
    vocabulary = llguidance.TokenizerWrapper(_Vocabulary(model, ends[0]))
    return llguidance.LLTokenizer(vocabulary, n_vocab=model.n_vocab, eos_token=ends, slices=[])


class _Vocabulary:
    """What llguidance's `TokenizerWrapper` asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, model: Model, end: int) -> None:
        self.eos_token_id = end
        self.tokens = [model.piece(token, keep=False) for token in range(model.n_vocab)]
        self.special_token_ids = [token for token in range(model.n_vocab) if model.is_control(token)]
        self._tokenize = model.tokenize

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenize(text)


def _first_line(reason: str) -> str:
    """An error of llguidance on one line of moderate length."""
    return " ".join(reason.partition("<state>")[0].split())[:200]
