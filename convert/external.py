"""The converter of a llama.cpp checkout, for architectures that are not written here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

from convert.errors import ConversionError
from convert.header import Metadata, read_header
from convert.model_gguf import FLOAT_TYPES
from sgft_edge.errors import InputError

_SCRIPT = "convert_hf_to_gguf.py"
_CHUNK = 16_000_000  # bytes copied at once


def find_converter(path: Path) -> Path:
    """The script in a checkout, or the script itself. Raises `InputError`."""
    script = path / _SCRIPT if path.is_dir() else path
    if not script.is_file():
        raise InputError(f"--converter: expected a llama.cpp checkout or its {_SCRIPT}, found none at {path}")
    return script


def convert_with(script: Path, model: Path, target: Path, type_name: str, about: Metadata) -> None:
    """Run it on a folder that transformers wrote; `about` goes into the metadata of what it wrote.

    Raises `ConversionError` with its last line.
    """
    if type_name not in FLOAT_TYPES:
        raise ConversionError(f"{script.name} writes {', '.join(FLOAT_TYPES)}, not {type_name}")
    written = target.with_name(f"theirs-{target.name}")
    command = [sys.executable, str(script), str(model), "--outfile", str(written), "--outtype", type_name.lower()]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if run.returncode or not written.is_file():
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        raise ConversionError(f"{script.name} ended with status {run.returncode}: {lines[-1][:300] if lines else ''}")
    _describe(written, target, about)
    written.unlink()


def _describe(source: Path, target: Path, about: Metadata) -> None:
    """Copy a GGUF file with more metadata."""
    header = read_header(source)
    writer = gguf.GGUFWriter(None, header.value("general.architecture"))
    writer.kv_data[0].update({**header.metadata, **about})
    for tensor in header.tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, tensor.type)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    with source.open("rb") as file:
        for tensor in header.tensors:
            writer.write_padding(out, out.tell())
            file.seek(header.data_start + tensor.offset)
            for size in [_CHUNK] * (tensor.bytes // _CHUNK) + [tensor.bytes % _CHUNK]:
                out.write(file.read(size))
    writer.write_padding(out, out.tell())
    writer.close()
