"""The converter of a llama.cpp checkout, for architectures that are not written here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from convert.errors import ConversionError
from convert.model_gguf import FLOAT_TYPES
from sgft_edge.errors import InputError

_SCRIPT = "convert_hf_to_gguf.py"


def find_converter(path: Path) -> Path:
    """The script in a checkout, or the script itself. Raises `InputError`."""
    script = path / _SCRIPT if path.is_dir() else path
    if not script.is_file():
        raise InputError(f"--converter: expected a llama.cpp checkout or its {_SCRIPT}, found none at {path}")
    return script


def convert_with(script: Path, model: Path, target: Path, type_name: str) -> None:
    """Run it on a folder that transformers wrote. Raises `ConversionError` with its last line."""
    if type_name not in FLOAT_TYPES:
        raise ConversionError(f"{script.name} writes {', '.join(FLOAT_TYPES)}, not {type_name}")
    command = [sys.executable, str(script), str(model), "--outfile", str(target), "--outtype", type_name.lower()]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if run.returncode or not target.is_file():
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        raise ConversionError(f"{script.name} ended with status {run.returncode}: {lines[-1][:300] if lines else ''}")
