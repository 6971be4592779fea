"""What the tests of the export share: tiny bases and adapters in a folder, and the command as a user runs it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hf
import numpy as np
import pytest
import torch
from engines import TOLERANCE, logits_after
from gguf import GGUFReader
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import CORPUS, byte_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from convert.export_gguf import main

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "convert" / "export_gguf.py"
_PROGRESS = re.compile(r"[\w ]+: \d+ of \d+, [\d.]+ a minute")
_ERROR = "sgft-edge: error: "


class Workshop:
    """A folder of models and adapters by name, each made when it is first asked for.

    `data` holds two problems with guidance, `text` as much as a quick proof takes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "problems.jsonl"
        rows = (REPOSITORY / "train" / "data" / "solution_guidance.dev.jsonl").read_text().splitlines(keepends=True)
        self.data.write_text("".join(rows[:2]))
        self.text = folder / "text.txt"
        self.text.write_text(CORPUS[:400])

    def base(self, arch: str = "llama", name: str | None = None, **changes: Any) -> Path:
        """A random model, with the tokenizer of its kind; `changes` go to `hf.tiny_hf`."""
        folder = self.folder / (name or arch)
        if not folder.is_dir():
            if arch in ("mistral", "gemma3"):
                size = hf.sentencepiece_files(folder, spaced=arch == "mistral")
            else:
                vocab = byte_tokenizer()
                hf.bpe_files(folder, vocab)
                size = len(vocab["tokenizer.ggml.tokens"].value)
            hf.tiny_hf(folder, arch, **({"vocab_size": size} | changes))
        return folder

    def lora(self, name: str = "lora", base: str = "llama", **changes: Any) -> Path:
        """A random adapter of one of the bases; `changes` go to `hf.tiny_lora`."""
        folder = self.folder / name
        if not folder.is_dir():
            hf.tiny_lora(folder, load(self._made(base)), base=str(self._made(base)), **changes)
        return folder

    def _made(self, base: str) -> Path:
        """A base by its name, which is its architecture's where nothing else has that name yet."""
        return self.folder / base if (self.folder / base).is_dir() else self.base(base)

    def arguments(self, source: Path, out: Path, *options: object) -> list[str]:
        """The command's arguments: a quick proof and no importance matrix, unless the options say otherwise."""
        given = [source, "--out", out, "--verify-data", self.text, "--imatrix", "none", *options]
        return [str(argument) for argument in given]

    def export(self, source: Path, out: Path, *options: object) -> int:
        """Run the command in this process, which must not ask for another machine; return its exit status."""
        asked: list[object] = []

        def refuse(host: object, *_: object, **__: object) -> None:
            asked.append(host)
            raise OSError("no test touches the network")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", refuse)
            patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # threads only delay tiny models
            status = main(self.arguments(source, out, *options))
        assert asked == []
        return status

    def plain(self, base: str = "llama") -> Path:
        """A base of that name as an unquantized GGUF file, exported once; beside it lies Q8_0."""
        out = self.folder / f"{base}-plain"
        if not out.is_dir():
            assert self.export(self._made(base), out, "--quant", "F32,Q8_0") == 0
        return out / f"{base}-F32.gguf"

    def refusal(self, source: Path, *options: object, status: int = 1) -> str:
        """Export what must fail: nothing is left behind, and the one line on stderr is returned."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        with contextlib.redirect_stderr(io.StringIO()) as err:
            assert self.export(source, place / "out", *options) == status
        assert list(place.iterdir()) == []
        *before, line = err.getvalue().splitlines()
        assert line.startswith(_ERROR), err.getvalue()
        assert [other for other in before if not _PROGRESS.fullmatch(other)] == []
        return line.removeprefix(_ERROR)


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """Keep the real user's folders out of what is exported before a test has its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("models", "config", "cache"):
            patch.setenv(f"SGFT_EDGE_{name.upper()}", str(folder / "user" / name))
        yield Workshop(folder)


def remarks(err: str) -> list[str]:
    """All lines that are no progress."""
    return [line for line in err.splitlines() if not _PROGRESS.fullmatch(line)]


def load(folder: Path) -> PreTrainedModel:
    """A model of transformers for comparison, which is not asked to end its texts."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


def adapted(base: Path, adapter: Path) -> PeftModel:
    """The base with an adapter as PEFT runs it."""
    return PeftModel.from_pretrained(load(base), str(adapter)).eval()


def prompt_of(n_vocab: int, length: int = 24) -> list[int]:
    """Ordinary tokens, always the same."""
    return np.random.default_rng(5).integers(300, n_vocab, length).tolist()


def difference(
    model: torch.nn.Module, file: Path, adapter: Path | None = None, prompt: list[int] | None = None
) -> float:
    """The largest difference of any logit after the last eight tokens of a prompt."""
    config = model.get_base_model().config if isinstance(model, PeftModel) else model.config
    prompt = prompt_of(config.vocab_size)
    found = logits_after(file, [(token, adapter) for token in prompt], 8)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -8:].float().numpy()
    return float(np.abs(np.stack(found) - expected).max())


def assert_alike(model: torch.nn.Module, file: Path, adapter: Path | None = None) -> None:
    """The runtime's logits from a file, with an adapter or without, are those of torch."""
    assert difference(model, file, adapter) <= TOLERANCE


def changed(source: Path, folder: Path, *parts: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy of a folder in which the tensors whose names hold one of `parts` are changed."""
    shutil.copytree(source, folder)
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    names = [key for key in weights if any(part in key for part in parts)]
    assert names
    save_file(weights | {key: change(weights[key]) for key in names}, file, {"format": "pt"})
    return folder


def card(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return out


def metadata(file: Path) -> dict[str, Any]:
    """All metadata of a GGUF file, by another reader than ours."""
    return {key: field.contents() for key, field in GGUFReader(file).fields.items()}


def tensors(file: Path) -> dict[str, np.ndarray]:
    """The raw tensors of a GGUF file by name."""
    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(file).tensors}


def types(file: Path) -> set[str]:
    """The types of a GGUF file's tensors."""
    return {tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
