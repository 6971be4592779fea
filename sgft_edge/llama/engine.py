"""Continuous batching over one GGUF file: many sequences, one `llama_decode` at a time.

A KV cell belongs to a token *and* to the weights that read it (base, or base
plus an adapter). Sequences therefore hold (token, weights) pairs, and a cell is
reused only where both agree. Decodes run under one set of weights at a time and
switch only when nothing is left to do under it, because every switch makes
llama.cpp reserve its graph anew.

The last bits of a logit depend on how the text before it was cut into batches
and on what else was in them. The state of a fixed prefix is therefore always
that of one read from its start and alone, and a sequence that works `alone`
takes nothing else over: what it writes does not depend on what came before it
or goes on beside it.

The engine belongs to one thread.
"""

from __future__ import annotations

import codecs
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sgft_edge.errors import ContextOverflow, EngineError, SgftError
from sgft_edge.llama.context import Context, Grammar
from sgft_edge.llama.device import Device
from sgft_edge.llama.lookup import Lookup
from sgft_edge.llama.matching import Matcher, Matchers
from sgft_edge.llama.model import Adapter, Model
from sgft_edge.llama.prefixes import PrefixStore
from sgft_edge.llama.sampling import Sampler
from sgft_edge.llama.tuning import Tuning
from sgft_edge.reasoning.backend import Completion, Usage
from sgft_edge.reasoning.schema import Form, JsonSchema
from sgft_edge.reasoning.settings import Sampling

Cell = tuple[int, Adapter | None]
_UTF8 = codecs.getincrementaldecoder("utf-8")
_PREFIXES = 8  # fixed prefixes whose state is kept in memory


class Sequence:
    """One slot of the KV cache and the text that it holds.

    One that works `alone` begins from a cleared slot or a prefix's state, and is never decoded in others' batches.
    """

    def __init__(self, engine: Engine, slot: int, cells: list[Cell]) -> None:
        self._engine = engine
        self.slot = slot
        self.cells = cells
        self.pending: list[Cell] = []
        self.tail = b""
        self.adapter: Adapter | None = None
        self.usage = Usage()
        self.alone = False

    def begin(
        self,
        tokens: list[int],
        adapter: Adapter | None,
        usage: Usage,
        fixed: int = 0,
        reserve: int = 0,
        durable: bool = False,
    ) -> None:
        """Make `tokens` the whole text of this sequence, keeping what the KV cache already holds of it.

        The first `fixed` tokens are a prefix shared by many prompts: it is
        decoded once for each set of weights and, where it is `durable`, kept for
        other processes too. `reserve` tokens must still fit after the prompt;
        raises `ContextOverflow` before anything is decoded.
        """
        if len(tokens) + reserve > self._engine.window:
            raise ContextOverflow(len(tokens) + reserve, self._engine.window)
        self.usage, self.tail = usage, b""
        wanted = _weighted(tokens, adapter)
        self.adapter = wanted[-1][1]  # the base, where an activated LoRA is not invoked
        held = 0 if self.alone else self._engine.move(self, wanted)
        if held < fixed < len(wanted):
            read = self._engine.load_prefix(self, wanted[:fixed], durable)
            usage.prefilled += read
            usage.reused -= read
            held = fixed
        held = min(held, len(wanted) - 1)
        self.cut(held)
        usage.reused += held
        usage.prefilled += len(wanted) - held
        self.pending = wanted[held:]

    def append(self, text: str) -> None:
        """Add forced text: it is read together with whatever comes next, not decoded."""
        tokens = self._engine.model.tokenize(self.tail + text.encode())
        self.tail = b""
        self.require(len(tokens))
        self.usage.prefilled += len(tokens)
        self.pending += [(t, self.adapter) for t in tokens]

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self._engine.window - len(self.cells) - len(self.pending)

    def require(self, tokens: int) -> None:
        """Raise `ContextOverflow` unless this many tokens still fit."""
        needed = len(self.cells) + len(self.pending) + tokens
        if needed > self._engine.window:
            raise ContextOverflow(needed, self._engine.window)

    def cut(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        if length < len(self.cells):
            del self.cells[length:]
            self._engine.drop_beyond(self)
        self.pending.clear()

    def complete(
        self,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        grammar: Form | None = None,
        sampling: Sampling | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Request:
        """A request to decode at most `max_tokens` tokens; strategies yield it to whoever steps the engine."""
        return Request(self, max_tokens, stop, grammar, sampling or Sampling(), on_text)

    def close(self) -> None:
        self._engine.release(self)


@dataclass(eq=False, slots=True)
class Request:
    """A completion under way on one sequence."""

    sequence: Sequence
    max_tokens: int
    stop: tuple[str, ...]
    grammar: Form | None
    sampling: Sampling
    on_text: Callable[[str], None] | None
    result: Completion | None = None
    error: Exception | None = None
    _start: int = 0
    _native: Grammar | Matcher | None = None
    _sampler: Sampler | None = None
    _tokens: list[int] = field(default_factory=list)
    _utf8: codecs.IncrementalDecoder = field(default_factory=lambda: _UTF8("surrogateescape"))  # keeps every byte
    _text: str = ""
    _shown: int = 0
    _lookup: Lookup | None = None

    @property
    def engine(self) -> Engine:
        return self.sequence._engine

    def start(self) -> None:
        if not self.sequence.pending:
            raise EngineError("nothing to read before decoding: the sequence has no pending text")
        self.sequence.require(self.max_tokens - 1)
        self._start = len(self.sequence.cells) + len(self.sequence.pending)
        if self.grammar is not None:
            self._native = self.engine.grammar(self.grammar)
        self._sampler = Sampler(self.sampling, self._native)
        if self.engine.drafting is not None and self.sampling.temperature == 0:
            self._lookup = Lookup(self.engine.drafting)

    def guess(self) -> list[int]:
        """Tokens that may follow the pending one."""
        sequence, lookup = self.sequence, self._lookup
        if lookup is None or len(sequence.pending) != 1:
            return []
        lookup.read(token for token, _ in [*sequence.cells, *sequence.pending][len(lookup) :])
        room = self.engine.window - len(sequence.cells) - 1
        return lookup.guess(min(room, self.max_tokens - len(self._tokens) - 1))

    def take_guessed(self, row: int, guess: list[int]) -> None:
        """Sample from the rows of the last pending token and of a guess, as long as the guess is what is sampled."""
        sequence = self.sequence
        self.take(row)
        right = 0
        for token in guess:
            if self.result is not None or sequence.pending[0][0] != token:
                break
            sequence.cells.append(sequence.pending.pop())
            right += 1
            self.take(row + right)
        if guess:
            assert self._lookup is not None
            self._lookup.settle(len(guess), right)

    def take(self, row: int) -> None:
        """Sample one token from the logits of a batch row and see whether the text ends with it."""
        assert self._sampler is not None
        sequence, model = self.sequence, self.engine.model
        token = self._sampler.pick(self.engine.context.logits(row))
        sequence.usage.decoded += 1
        if model.ends_generation(token):
            self._finish(self._text + self._utf8.decode(b"", True), "end", len(self._tokens) + 1)
            return
        self._tokens.append(token)
        self._text += self._utf8.decode(model.piece(token))
        cuts = [(i, s) for s in self.stop if (i := self._text.find(s)) >= 0]
        if cuts:
            at, ending = min(cuts)
            self._finish(self._text[:at], "stop", len(self._tokens), ending)
        elif len(self._tokens) >= self.max_tokens:
            self._finish(self._text + self._utf8.decode(b"", True), "length", len(self._tokens))
        else:
            sequence.pending.append((token, sequence.adapter))
            self._show(len(self._text) - self._held_back())

    def _held_back(self) -> int:
        """Characters at the end that may turn out to begin a stop string."""
        longest = max((len(s) for s in self.stop), default=1) - 1
        for n in range(min(longest, len(self._text)), 0, -1):
            if any(s.startswith(self._text[-n:]) for s in self.stop):
                return n
        return 0

    def _show(self, end: int) -> None:
        if self.on_text is not None and end > self._shown:
            self.on_text(_printable(self._text[self._shown : end]))
            self._shown = end

    def _finish(self, text: str, finish: Literal["stop", "end", "length"], tokens: int, ending: str = "") -> None:
        self._text = text
        self._show(len(text))
        self._settle(len(text.encode(errors="surrogateescape")))
        self.result = Completion(_printable(text), tokens, finish, ending)
        self.close()

    def _settle(self, n_bytes: int) -> None:
        """Leave exactly the first `n_bytes` of the decoded text in the sequence, whatever the last tokens covered."""
        sequence, model = self.sequence, self.engine.model
        kept = held = 0
        for token in self._tokens:
            size = len(model.piece(token))
            if held + size > n_bytes:
                break
            kept, held = kept + 1, held + size
        in_cache = len(sequence.cells) - self._start
        if kept < in_cache:
            sequence.cut(self._start + kept)
        sequence.pending = [(t, sequence.adapter) for t in self._tokens[in_cache:kept]]
        rest = b"".join(model.piece(t) for t in self._tokens[kept:])
        sequence.tail = rest[: n_bytes - held]

    def close(self) -> None:
        if self._native is not None:
            self._native.close()
            self._native = None


class Engine:
    """One GGUF file, its adapters, and `slots` sequences of `window` tokens each.

    `prefixes` keeps the states of fixed prefixes for other processes. `threads` count where there is no `tuning`.
    """

    def __init__(
        self,
        path: Path,
        *,
        slots: int = 1,
        window: int = 2048,
        threads: int = 1,
        device: Device | None = None,
        prefixes: PrefixStore | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        gpu = device is not None and device.is_gpu
        self.model = Model(path, -1 if gpu else 0, device.handles if device is not None else ())
        try:
            tuning = tuning or Tuning(threads, threads)
            window = min(window, self.model.n_ctx_train)
            self.context = Context(self.model, slots, window, tuning, offload=gpu)
        except BaseException:
            self.model.close()
            raise
        self.window = self.context.window
        self.slots = slots
        self.drafting = tuning.drafting
        self._adapters: dict[Path, Adapter] = {}
        self._free: dict[int, list[Cell]] = {slot: [] for slot in range(slots)}  # what each still holds, oldest first
        self._active: list[Request] = []
        self._weights: Adapter | None = None
        self._prefixes: OrderedDict[tuple[Cell, ...], bytes] = OrderedDict()
        self._stored = prefixes
        self._matchers = Matchers(self.model)
        self._closed = False
        self.switches = 0

    def adapter(self, path: Path) -> Adapter:
        """Load an adapter, once. Raises `AdapterMismatch`."""
        file = path.resolve()
        if file not in self._adapters:
            self._adapters[file] = Adapter(self.model, path)
        return self._adapters[file]

    def grammar(self, form: Form) -> Grammar | Matcher:
        """A text's grammar, at its beginning. Raises `GrammarError`, and `InputError` for a JSON schema."""
        return self._matchers.begin(form) if isinstance(form, JsonSchema) else Grammar(self.model, form)

    def hold(self, schema: JsonSchema) -> None:
        """Compile a JSON schema, in whatever thread, so that no decoding waits for it. Raises `InputError`."""
        self._matchers.hold(schema)

    @property
    def free(self) -> int:
        """Sequences that may be acquired now."""
        return len(self._free)

    def acquire(self) -> Sequence:
        """A sequence to begin a text on. Raises `EngineError` while all slots are taken."""
        if not self._free:
            raise EngineError(f"all {self.slots} sequences are in use")
        slot = next(iter(self._free))
        return Sequence(self, slot, self._free.pop(slot))

    def release(self, sequence: Sequence) -> None:
        """Give a slot back with what its cache holds; a completion under way on it is dropped."""
        if self._closed:
            return
        for request in [r for r in self._active if r.sequence is sequence]:
            self._active.remove(request)
            request.close()
        self._free[sequence.slot] = sequence.cells

    def forget(self) -> None:
        """Drop what is kept in memory of texts that no sequence works on."""
        self._prefixes.clear()
        for slot in self._free:
            self.context.keep(slot, 0)
            self._free[slot] = []

    def move(self, sequence: Sequence, wanted: list[Cell]) -> int:
        """Put a sequence on the slot, its own or a free one, that holds most of a text; returns how much that is."""
        held = _common(sequence.cells, wanted)
        for slot, cells in list(self._free.items()):
            if (found := _common(cells, wanted)) > held:
                self._free[sequence.slot] = sequence.cells
                sequence.slot, sequence.cells, held = slot, self._free.pop(slot), found
        return held

    def submit(self, request: Request) -> None:
        request.start()
        self._active.append(request)

    @property
    def busy(self) -> bool:
        return bool(self._active)

    def step(self) -> list[Request]:
        """One decode call for sequences that share the weights in use; returns the requests that ended."""
        ready = [r for r in self._active if r.sequence.pending[0][1] is self._weights]
        if not ready:
            self._switch(self._active[0].sequence.pending[0][1])
            ready = [r for r in self._active if r.sequence.pending[0][1] is self._weights]
        group, count = self._group(ready)
        guess = group[0].guess() if len(self._active) == 1 or group[0].sequence.alone else []
        rows = self._decode([(request.sequence, count) for request in group], guess)
        ended = []
        for request in group:
            if (row := rows.get(request.sequence.slot)) is not None:
                try:
                    request.take_guessed(row, guess)
                except Exception as e:  # noqa: BLE001 - one text's trouble is not its neighbours'
                    request.error = e
                    request.close()
                if request.result is not None or request.error is not None:
                    self._active.remove(request)
                    ended.append(request)
        if guess:
            self.drop_beyond(group[0].sequence)
        return ended

    def _group(self, ready: list[Request]) -> tuple[list[Request], int]:
        """The requests that go into the next batch, and how many tokens of each.

        llama.cpp splits a batch into parts in which all sequences have equally many tokens, so those that do go
        together. Whoever has waited longest decides how many, so that a long prompt does not hold up the others, and
        whether it is read alone.
        """
        first = ready[0]
        count = _run(first.sequence.pending)
        group = [first]
        if not first.sequence.alone:
            fitting = (r for r in ready if not r.sequence.alone and _run(r.sequence.pending) == count)
            group = [*itertools.islice(fitting, self.context.batch_size)]
        self._active = [request for request in self._active if request not in group] + group
        group = sorted(group, key=lambda request: request.sequence.slot)
        return group, min(count, self.context.batch_size // len(group))

    def _decode(self, work: list[tuple[Sequence, int]], guess: list[int] | None = None) -> dict[int, int]:
        """Decode the first tokens pending on each sequence; returns slot -> batch row where logits are ready.

        A guess is read after the only sequence's tokens; its rows follow that one.
        """
        context, rows, n = self.context, {}, 0
        for sequence, count in work:
            end = n + count
            context.token[n:end] = [token for token, _ in sequence.pending[:count]]
            start = len(sequence.cells)
            context.pos[n:end] = range(start, start + count)
            context.seq[n:end] = sequence.slot
            context.output[n:end] = 0
            if count == len(sequence.pending):
                context.output[end - 1] = 1
                rows[sequence.slot] = end - 1
            n = end
        if guess:
            end, start = n + len(guess), int(context.pos[n - 1]) + 1
            context.token[n:end] = guess
            context.pos[n:end] = range(start, start + len(guess))
            context.seq[n:end] = work[0][0].slot
            context.output[n:end] = 1
            n = end
        began = time.perf_counter()
        try:
            context.decode(n)
        except SgftError:
            for sequence, _ in work:
                self.drop_beyond(sequence)
            raise
        share = (time.perf_counter() - began) / len(work)
        for sequence, count in work:
            sequence.usage.seconds += share
            sequence.cells += sequence.pending[:count]
            del sequence.pending[:count]
            sequence.usage.calls += 1
        return rows

    def drop_beyond(self, sequence: Sequence) -> None:
        """Take out of the cache what does not belong to the text of a sequence."""
        if not self.context.keep(sequence.slot, len(sequence.cells)):
            raise EngineError(f"{self.model.path.name} cannot rewind its memory")

    def _switch(self, weights: Adapter | None) -> None:
        if weights is not self._weights:
            self.context.use(weights)
            self._weights = weights
            self.switches += 1

    def load_prefix(self, sequence: Sequence, cells: list[Cell], durable: bool = False) -> int:
        """Fill a sequence with the cells of a fixed prefix, and with nothing else.

        Returns how many had to be decoded: none where the state of the prefix was kept.
        """
        key = tuple(cells)
        store = self._stored if durable else None
        state = self._prefixes.get(key) or (store.load(cells) if store is not None else None)
        sequence.cut(0)
        if state is not None and self.context.restore(sequence.slot, state):
            self._keep_prefix(key, state)
            sequence.cells = list(cells)
            return 0
        sequence.pending = list(cells)
        self.read(sequence)
        state = self.context.save(sequence.slot)
        self._keep_prefix(key, state)
        if store is not None:
            store.save(cells, state)
        return len(cells)

    def read(self, sequence: Sequence, guess: list[int] | None = None) -> None:
        """Decode all that is pending on a sequence, at once and alone; with a guess, which must fit into one batch."""
        while sequence.pending:
            self._switch(sequence.pending[0][1])
            self._decode([(sequence, min(_run(sequence.pending), self.context.batch_size))], guess)

    def _keep_prefix(self, key: tuple[Cell, ...], state: bytes) -> None:
        self._prefixes[key] = state
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > _PREFIXES:
            self._prefixes.popitem(last=False)

    def close(self) -> None:
        """Free the native memory; the engine cannot be used afterwards."""
        self._closed = True
        for request in self._active:
            request.close()
        self._active.clear()
        self._prefixes.clear()
        self.context.close()
        for adapter in self._adapters.values():
            adapter.close()
        self._adapters.clear()
        self.model.close()


def _weighted(tokens: list[int], adapter: Adapter | None) -> list[Cell]:
    """Each token with the weights that read it: an activated LoRA leaves what precedes its invocation to the base.

    See arXiv 2504.12397; the last occurrence of the invocation counts.
    """
    start = 0
    if adapter is not None and (mark := list(adapter.invocation)):
        start = len(tokens)
        for i in range(len(tokens) - len(mark), -1, -1):
            if tokens[i : i + len(mark)] == mark:
                start = i
                break
    return [(t, adapter if i >= start else None) for i, t in enumerate(tokens)]


def _printable(text: str) -> str:
    """Decoded text as it goes out: bytes that are not UTF-8 become U+FFFD."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _common(a: list[Cell], b: list[Cell]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _run(cells: list[Cell]) -> int:
    """Length of the first stretch under one set of weights."""
    weights = cells[0][1]
    return next((i for i, (_, w) in enumerate(cells) if w is not weights), len(cells))
