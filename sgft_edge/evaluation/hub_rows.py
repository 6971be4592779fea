"""The rows of a set on the Hugging Face hub, loaded by the package `datasets` in a process of its own.

Its Arrow threads may abort a process that ends while one of them is at work
(https://github.com/apache/arrow/issues/45214), and what it prints and caches is its own affair.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from sgft_edge.errors import SgftError
from sgft_edge.host.child import run_child


def load_rows(repository: str, configuration: str | None, split: str) -> list[dict[str, Any]]:
    """Rows with the columns that the hub has. Raises `SgftError` with what to install, or with what the hub says."""
    wanted = {"path": repository, "name": configuration, "split": split}
    found: dict[str, Any] = run_child(__name__, wanted)
    if "missing" in found:
        raise SgftError("sets by name need the package datasets: pip install 'sgft-edge[data]'")
    if "reason" in found:
        place = f"{repository}, split {split}"
        raise SgftError(f"{place}: cannot be loaded: {found['reason']}: try again, or name a JSONL file")
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def _load(wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        import datasets
        from huggingface_hub.utils import logging
    except ImportError as e:
        return {"missing": str(e)}
    datasets.disable_progress_bars()
    for noisy in (datasets.logging, logging):
        noisy.set_verbosity_error()
    try:
        rows: Iterable[Any] = datasets.load_dataset(**wanted)
        return {"rows": list(rows)}
    except Exception as e:  # noqa: BLE001 - whatever network, hub, cache and file formats raise
        return {"reason": str(e).strip().partition("\n")[0] or type(e).__name__}


if __name__ == "__main__":
    print(json.dumps(_load(json.load(sys.stdin))), flush=True)
    os._exit(0)  # what is left are foreign threads
