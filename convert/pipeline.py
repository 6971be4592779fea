"""The export from end to end: which files come of what is given, and the proof that they are right."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convert import card, quantize, verify, vocabulary
from convert.adapter import attach
from convert.checkpoint import Checkpoint, checkpoint_of, open_checkpoint
from convert.errors import ConversionError, NotProven
from convert.external import convert_with, find_converter
from convert.header import Metadata, read_header
from convert.imatrix import ImportanceMatrix, collect, read_imatrix, write_imatrix
from convert.logits import Logits, file_logits, torch_logits
from convert.lora_gguf import write_lora
from convert.merge import merge
from convert.model_gguf import write_model
from convert.proof import Check, Proof
from convert.request import Options, Source, open_source
from convert.samples import Sample, samples_for
from convert.staging import need_room, staged
from convert.threads import heed_thread_limit
from sgft_edge.terminal.progress import progress

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_TYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_LOGIT_SAMPLES = 4  # texts whose logits are compared with torch's: all positions of all tokens, so a few are many


@dataclass(frozen=True)
class Result:
    """What was exported: `files` by name with their role, "model" or "adapter", and the proof."""

    folder: Path
    files: dict[str, str]
    proof: Proof
    warnings: tuple[str, ...]


def export(options: Options) -> Result:
    """Export a model or an adapter. Nothing appears at `options.out` unless every check holds.

    Raises `ConversionError` and its kinds, `InputError`, `ModelError`.
    """
    heed_thread_limit()
    source = open_source(options)
    with staged(options.out, options.force) as folder:
        run = _Export(options, source, folder)
        proof = run.with_adapter() if source.adapter is not None else run.plain()
        if proof.failures:
            lines = "; ".join(f"{check.name}: {check.found}, expected {check.expected}" for check in proof.failures)
            raise NotProven(f"nothing was exported: {lines}")
        shutil.rmtree(run.work)
        card.write_card(folder, run.origin, run.files, proof, card.licence_of(source.base))
    return Result(options.out, run.files, proof, source.warnings)


class _Export:
    """One run in its folder: `work` holds what does not stay."""

    def __init__(self, options: Options, source: Source, folder: Path) -> None:
        self.options, self.source, self.folder = options, source, folder
        self.work = folder / "work"
        self.work.mkdir()
        self.files: dict[str, str] = {}
        self.checks: list[Check] = []
        self.converter = find_converter(options.converter) if options.converter else None
        streams = source.adapter is None and not source.base.is_packed
        self.model = None if streams else self._loaded()
        checkpoint = open_checkpoint(source.base.path) if self.model is None else checkpoint_of(self.model)
        self.kind = options.unquantized or _TYPE_NAMES.get(checkpoint.dtype, "F32")
        self.tokenizer: Metadata = {}
        if self.converter is None:
            self.tokenizer = source.base.tokenizer(checkpoint.config, options.pre)
            source.check_tokenizer(self.tokenizer, checkpoint.config)
            vocabulary.check_template(self.tokenizer)
        need_room(folder, _bytes_needed(checkpoint, self.kind, options))
        imatrix = options.imatrix.name if options.imatrix and options.wants_model and options.quantizes else None
        self.origin = card.origin_of(
            source.name, source.base, source.adapter, imatrix, options.command, source.warnings
        )

    def plain(self) -> Proof:
        """A model as it is."""
        base = self.source.base
        checkpoint = open_checkpoint(base.path) if self.model is None else checkpoint_of(self.model)
        unquantized = self._write_unquantized(checkpoint, base.path)
        if self.model is None and (self.options.verify or self.options.collects_imatrix):
            self.model = self._loaded()
        quantized = self._quantize(unquantized)
        if not self.options.verify:
            return Proof()
        samples = self._samples(unquantized)
        self.checks += verify.check_tokens(base, unquantized)
        few = samples[:_LOGIT_SAMPLES]
        expected = [torch_logits(self._torch, sample.tokens) for sample in few]
        found = file_logits(unquantized, None, few)
        limit = self.options.limits.error(self.kind)
        self.checks.append(verify.check_logits("the unquantized file against transformers", found, expected, limit))
        return self._compared(unquantized, quantized, samples)

    def with_adapter(self) -> Proof:
        """A base with an adapter: merged, as a file of its own, or both."""
        assert self.source.adapter is not None
        base_file: Path | None = None
        if self.options.verify:
            # Unquantized, whatever the base was: only then is a difference an error.
            base_file = self.work / "base.gguf"
            if self.converter is not None:
                convert_with(self.converter, self._as_folder(self.source.base.path), base_file, self.kind, {})
            else:
                self._write(base_file, checkpoint_of(self._torch), {}, "base for comparison")
        peft = attach(self._torch, self.source.adapter)
        samples = self._samples(base_file) if base_file is not None else []
        few = samples[:_LOGIT_SAMPLES]
        adapted, plain = self._effect(peft, few) if samples else ([], [])
        if self.options.wants_adapter:
            path = self._write_adapter(peft)
            if base_file is not None:
                limit = max(self.options.limits.f16_error, self.options.limits.error(self.kind))
                found = file_logits(base_file, path, few)
                self.checks.append(verify.check_adapter("base + adapter against PEFT", found, adapted, plain, limit))
        if base_file is not None:
            self.checks += verify.check_tokens(self.source.base, base_file)
            base_file.unlink()
        if not self.options.wants_model:
            return Proof(tuple(self.checks))
        self.model = merge(peft)
        unquantized = self._write_unquantized(checkpoint_of(self.model), None)
        quantized = self._quantize(unquantized)
        if not samples:
            return Proof()
        found, limit = file_logits(unquantized, None, few), self.options.limits.error(self.kind)
        self.checks.append(verify.check_adapter("the merged file against PEFT", found, adapted, plain, limit))
        return self._compared(unquantized, quantized, samples)

    @property
    def _torch(self) -> PreTrainedModel:
        assert self.model is not None
        return self.model

    def _loaded(self) -> PreTrainedModel:
        return self.source.base.load(self.options.dtype, any_architecture=self.converter is not None)

    def _write_unquantized(self, checkpoint: Checkpoint, folder: Path | None) -> Path:
        path = self.work / f"{self.source.name}-{self.kind}.gguf"
        about = card.metadata(self.origin, self.source.base, checkpoint.parameters)
        if self.converter is not None:
            facts = {key: value for key, value in about.items() if not key.startswith("general.")}
            convert_with(self.converter, self._as_folder(folder), path, self.kind, facts)
        else:
            self._write(path, checkpoint, about, f"{self.kind} tensors")
        return path

    def _write(self, path: Path, checkpoint: Checkpoint, about: Metadata, title: str) -> None:
        base = self.source.base
        given = vocabulary.hyperparameters_from_gguf(base.path) if base.is_gguf else None
        with progress(title, len(checkpoint.tensors)) as advance:
            write_model(path, checkpoint, self.tokenizer, about, self.kind, given, advance)

    def _as_folder(self, folder: Path | None) -> Path:
        """A folder for another converter: the one that was given, or the merged model with the base's tokenizer."""
        if folder is not None and folder.is_dir():
            return folder
        if self.source.base.is_gguf:
            raise ConversionError("--converter: expected a base in a folder, with its tokenizer, found a GGUF file")
        target = self.work / "merged"
        self._torch.save_pretrained(target)
        for path in self.source.base.path.iterdir():
            if path.suffix in (".json", ".model", ".jinja") and not (target / path.name).exists():
                shutil.copy(path, target)
        return target

    def _write_adapter(self, peft: PeftModel) -> Path:
        assert self.source.adapter is not None
        path = self.folder / f"{self.source.name}-lora-{self.options.adapter_type}.gguf"
        about = card.metadata(self.origin, self.source.base, 0)
        with progress("adapter tensors", len(self.source.adapter.shapes)) as advance:
            write_lora(path, peft, self.source.adapter, about, self.options.adapter_type, advance)
        self.files[path.name] = "adapter"
        return path

    def _effect(self, peft: PeftModel, samples: Sequence[Sample]) -> tuple[list[Logits], list[Logits]]:
        """PEFT's logits with the adapter and without."""
        adapted = [torch_logits(peft, sample.tokens) for sample in samples]
        with peft.disable_adapter():
            plain = [torch_logits(peft, sample.tokens) for sample in samples]
        self.checks.append(verify.check_change(adapted, plain, self.options.limits.min_change))
        return adapted, plain

    def _quantize(self, unquantized: Path) -> list[tuple[str, Path]]:
        """Write every wanted type; returns those that are not the unquantized file itself."""
        matrix = self._matrix(unquantized) if self.options.quantizes else None
        made: list[tuple[str, Path]] = []
        for name in dict.fromkeys(quantize.check_type(name) for name in self.options.quants):
            path = self.folder / f"{self.source.name}-{name}.gguf"
            self.files[path.name] = "model"
            if name == self.kind and not self.options.overrides:
                _link(unquantized, path)
                continue
            with progress(f"{name} tensors", len(read_header(unquantized).tensors)) as advance:
                quantize.quantize(unquantized, path, name, matrix, self.options.overrides, advance=advance)
            made.append((name, path))
        return made

    def _matrix(self, unquantized: Path) -> ImportanceMatrix | None:
        source = self.options.imatrix
        if source is None:
            return None
        if not self.options.collects_imatrix:
            matrix = read_imatrix(source)
            if not set(matrix.sums) & {tensor.name for tensor in read_header(unquantized).tensors}:
                raise ConversionError(f"--imatrix {source}: none of its names is one of this model's tensors")
            return matrix
        samples = samples_for(unquantized, source, self.options.imatrix_rows)
        with progress("importance matrix", len(samples)) as advance:
            matrix = collect(self._torch, [sample.tokens for sample in samples], source.name, advance)
        write_imatrix(self.folder / f"{self.source.name}-imatrix.gguf", matrix)
        return matrix

    def _samples(self, file: Path) -> list[Sample]:
        assert self.options.verify_data is not None
        return samples_for(file, self.options.verify_data, self.options.verify_rows)

    def _compared(self, unquantized: Path, quantized: Sequence[tuple[str, Path]], samples: Sequence[Sample]) -> Proof:
        with progress("quantized against unquantized", len(samples)) as advance:
            results, perplexity, positions = verify.compare_quantized(unquantized, quantized, samples, advance)
        self.checks += [verify.check_quantized(result, self.options.limits) for result in results]
        return Proof(tuple(self.checks), tuple(results), perplexity, positions)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _bytes_needed(checkpoint: Checkpoint, kind: str, options: Options) -> int:
    """What an export may take on the disk: unquantized files, and each type by the bits in its name."""
    unquantized = checkpoint.parameters * (4 if kind == "F32" else 2)
    copies = options.wants_model + (options.wants_adapter or options.format == "merged")
    quants = sum(checkpoint.parameters * quantize.bits_at_most(name) // 8 for name in options.quants)
    return copies * unquantized + (quants if options.wants_model else 0)
