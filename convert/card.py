"""Where an export came from: `card.json`, a README, GGUF metadata, an Ollama Modelfile, entries for the manifest."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
from gguf.gguf_writer import GGUFValue, GGUFValueType

from convert.adapter import WEIGHTS, AdapterFolder
from convert.base import Base
from convert.header import Metadata, read_header
from convert.proof import Proof
from convert.record import TrainingRecord
from sgft_edge.host.files import toml_tables
from sgft_edge.host.folders import flush
from sgft_edge.host.machine import MB
from sgft_edge.reasoning.prompts import SYSTEM
from sgft_edge.solving.adapters import PROMPTS_KEY, ROLE_KEY
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Entry

ENTRIES = "models.toml"
_PACKAGES = ("sgft-edge", "torch", "transformers", "peft", "safetensors", "gguf", "llama-cpp-python", "numpy")


@dataclass(frozen=True)
class Origin:
    """What an export was made of; digests are SHA-256.

    `training` is the record that our training wrote into the adapter's folder, None for others.
    """

    name: str
    base: str
    base_digest: str
    adapter: str | None
    adapter_digest: str | None
    prompts_digest: str | None
    training: TrainingRecord | None
    imatrix: str | None
    versions: Mapping[str, str]
    command: str
    warnings: tuple[str, ...] = ()

    @property
    def training_facts(self) -> dict[str, Any]:
        """The record as JSON takes it, empty where there is none."""
        return asdict(self.training) if self.training else {}


def origin_of(
    name: str, base: Base, adapter: AdapterFolder | None, imatrix: str | None, command: str, warnings: tuple[str, ...]
) -> Origin:
    """Collect the facts."""
    record = adapter.record if adapter else None
    return Origin(
        name=name,
        base=base.title,
        base_digest=base.digest(),
        adapter=adapter.path.name if adapter else None,
        adapter_digest=file_digest(adapter.path / WEIGHTS) if adapter else None,
        prompts_digest=record.prompts_digest if record else None,
        training=record,
        imatrix=imatrix,
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        command=command,
        warnings=warnings,
    )


def metadata(origin: Origin, base: Base, parameters: int) -> Metadata:
    """The same facts as GGUF metadata: `general.*` as other tools read it, `sgft.*` for the rest."""
    writer = gguf.GGUFWriter(None, "llama")
    del writer.kv_data[0]["general.architecture"]
    if base.is_gguf:
        kept = ("general.organization", "general.basename", "general.license", "general.languages")
        fields = read_header(base.path).metadata
        writer.kv_data[0].update({key: fields[key] for key in kept if key in fields})
        writer.add_name(origin.name)
        writer.add_size_label(gguf.size_label(parameters, 0, 0, 0))
    else:
        gguf.Metadata.load(None, base.path, origin.name, parameters).set_gguf_meta_model(writer)
    if origin.adapter:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, origin.base)
    facts = {
        PROMPTS_KEY: origin.prompts_digest,
        ROLE_KEY: origin.training.role if origin.training else None,
        "sgft.base": origin.base,
        "sgft.base_digest": origin.base_digest,
        "sgft.adapter": origin.adapter,
        "sgft.adapter_digest": origin.adapter_digest,
        "sgft.imatrix": origin.imatrix,
        "sgft.training": json.dumps(origin.training_facts) if origin.training else None,
        "sgft.versions": json.dumps(origin.versions),
        "sgft.command": origin.command,
    }
    for key, value in facts.items():
        if value:
            writer.kv_data[0][key] = GGUFValue(value, GGUFValueType.STRING, None)
    return dict(writer.kv_data[0])


def write_card(folder: Path, origin: Origin, files: Mapping[str, str], proof: Proof, licence: str) -> None:
    """Write everything beside the GGUF files; `files` maps their names to "model" or "adapter"."""
    with ThreadPoolExecutor() as pool:  # on their way to the disk while they are read for their digests
        flushed = pool.map(flush, [folder / name for name in files])
        digests = dict(zip(files, pool.map(partial(file_digest, fresh=True), [folder / n for n in files]), strict=True))
        list(flushed)
    sizes = {name: (folder / name).stat().st_size for name in files}
    card = {
        "origin": asdict(origin) | {"training": origin.training_facts},
        "licence": licence,
        "files": {name: {"role": role, "bytes": sizes[name], "sha256": digests[name]} for name, role in files.items()},
        "proof": asdict(proof),
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(origin, files, sizes, proof, licence), encoding="utf-8")
    (folder / "Modelfile").write_text(_modelfile(origin, files), encoding="utf-8")
    entries = [_entry(origin, folder / name, role, digests[name], licence) for name, role in files.items()]
    (folder / ENTRIES).write_text(
        toml_tables("models", {entry.name: entry.to_table() for entry in entries}), encoding="utf-8"
    )


def _entry(origin: Origin, path: Path, role: str, digest: str, licence: str) -> Entry:
    entry = Entry(
        name=slug(path.stem),
        title=path.stem,
        role="model",
        file=path.name,
        licence=licence,
        bytes=path.stat().st_size,
        sha256=digest,
    )
    if role == "model":
        return entry
    architecture = read_header(path).value("general.architecture")
    base = slug(origin.base)
    return replace(entry, role=role, base=base, architecture=architecture, prompts_digest=origin.prompts_digest)


def licence_of(base: Base) -> str:
    """The base's licence by its metadata; NOASSERTION is SPDX's word for "not stated"."""
    if base.is_gguf:
        licence = read_header(base.path).value("general.license")
    else:
        licence = gguf.Metadata.load(None, base.path).license
    return {"apache-2.0": "Apache-2.0", "mit": "MIT"}.get(str(licence), str(licence or "NOASSERTION"))


def slug(name: str) -> str:
    """A name that the manifest takes."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "model"


def _readme(origin: Origin, files: Mapping[str, str], sizes: Mapping[str, int], proof: Proof, licence: str) -> str:
    lines = [f"# {origin.name}", ""]
    lines += [f"Base: `{origin.base}` (sha256 `{origin.base_digest[:16]}`), licence {licence}."]
    if origin.adapter:
        lines += [f"Adapter: `{origin.adapter}` (sha256 `{(origin.adapter_digest or '')[:16]}`)."]
    for key in ("data", "settings"):
        if facts := origin.training_facts.get(key):
            lines += [f"Training {key}: `{json.dumps(facts, ensure_ascii=False)}`."]
    lines += ["Made with " + ", ".join(f"{package} {version}" for package, version in origin.versions.items()) + "."]
    lines += ["", "| file | role | MB |", "|---|---|---|"]
    lines += [f"| {name} | {role} | {sizes[name] / MB:.1f} |" for name, role in files.items()]
    lines += ["", "## Checks", ""]
    if proof.checks:
        lines += ["| | found | expected |", "|---|---|---|"]
        lines += [f"| {check.name} | {check.found} | {check.expected} |" for check in proof.checks]
    else:
        lines += ["None: exported with `--no-verify`."]
    if proof.quantized:
        lines += ["", f"On {proof.positions} tokens; perplexity unquantized {proof.reference_perplexity:.3f}.", ""]
        lines += ["| type | bits a weight | KLD | top-1 | perplexity | tensors |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {q.type} | {q.bits_per_weight:.2f} | {q.kld:.4f} | {q.agreement:.3f} | {q.perplexity:.3f} "
            f"| {', '.join(f'{n} {kind}' for kind, n in q.types.items())} |"
            for q in proof.quantized
        ]
    lines += ["", *(f"Warning: {warning}" for warning in origin.warnings)]
    lines += ["Add it to the models known by name: `sgft-edge models add` with this folder.", ""]
    lines += [f"Made by `{origin.command}`."]
    return "\n".join(lines) + "\n"


def _modelfile(origin: Origin, files: Mapping[str, str]) -> str:
    """For Ollama: https://github.com/ollama/ollama/blob/main/docs/modelfile.md"""
    model = next((name for name, role in files.items() if role == "model"), None)
    adapter = next((name for name, role in files.items() if role == "adapter"), None)
    lines = [f"FROM ./{model}" if model else f"FROM ./{origin.base}.gguf"]
    if adapter and not model:
        lines += [f"ADAPTER ./{adapter}"]
    lines += ["PARAMETER temperature 0", f'SYSTEM """{SYSTEM}"""']
    return "\n".join(lines) + "\n"
