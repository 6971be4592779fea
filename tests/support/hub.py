"""A stand-in for the Hugging Face hub's datasets: what the package `datasets` asks for, from memory."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from servers import LocalServer, QuietHandler

COMMIT = "c0ffee00" * 5
Files = dict[str, bytes]


def repository(configuration: str, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Files:
    """The files of a dataset with one configuration: a Parquet file for each split, and a card that names them."""
    import pyarrow
    from pyarrow import parquet

    files = {}
    card = ["---", "configs:", f"- config_name: {configuration}", "  data_files:"]
    for split, rows in splits.items():
        content = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), content)
        files[f"{configuration}/{split}-00000-of-00001.parquet"] = content.getvalue()
        card += [f"  - split: {split}", f"    path: {configuration}/{split}-*"]
    return {"README.md": "\n".join([*card, "---", ""]).encode(), **files}


class DatasetHub(LocalServer):
    """Repositories by name, each with the files of its only commit."""

    def __init__(self, repositories: Mapping[str, Files]) -> None:
        super().__init__(_Handler)
        self.repositories = repositories


class _Handler(QuietHandler):
    server: DatasetHub

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        for name, files in self.server.repositories.items():
            if match := re.fullmatch(rf"/datasets/{name}/resolve/\w+/(.+)", path):
                self._answer(files.get(match[1]))
            elif re.fullmatch(rf"/api/datasets/{name}(/revision/\w+)?", path):
                siblings = [{"rfilename": file} for file in files]
                self._answer_json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
            elif match := re.fullmatch(rf"/api/datasets/{name}/tree/\w+/?(.*)", path):
                self._answer_json(_tree(files, match[1]))
            else:
                continue
            return
        self._answer(None)

    do_HEAD = do_GET

    def _answer_json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode())

    def _answer(self, content: bytes | None) -> None:
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        content = content or b""
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _tree(files: Files, folder: str) -> list[dict[str, Any]]:
    inside = folder + "/" if folder else ""
    below = {path.removeprefix(inside) for path in files if path.startswith(inside)}
    folders = {path.partition("/")[0] for path in below if "/" in path}
    found: list[dict[str, Any]] = [{"type": "directory", "path": inside + path, "oid": "0" * 40} for path in folders]
    for path in below - folders:
        if "/" not in path:
            oid = hashlib.sha1(files[inside + path]).hexdigest()
            found.append({"type": "file", "path": inside + path, "size": len(files[inside + path]), "oid": oid})
    return found
