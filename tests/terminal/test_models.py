"""`sgft-edge models` as a user runs it; `pull` and `verify` are in test_pull.py."""

import json

import pytest
from click.testing import CliRunner

from sgft_edge.errors import ModelMissing
from sgft_edge.host.files import config_folder, models_folder
from sgft_edge.models import command


def test_command_list():
    result = CliRunner().invoke(command, ["list", "--json"])
    rows = {row["name"]: row for row in json.loads(result.output)}
    assert rows["smollm2"]["path"] is None
    assert rows["smollm2"]["bytes"] == 98362432
    shown = CliRunner().invoke(command, ["list"]).output.split()
    assert set(rows) <= set(shown), "a name is cut off"


def test_command_add_where_rm(gguf):
    def run(*args: str, answer: str = "") -> str:
        result = CliRunner().invoke(command, args, input=answer, catch_exceptions=False)
        return result.output

    assert run("add", "mine", str(gguf), "--licence", "MIT") == f"mine: {gguf}\n"
    assert run("where", "mine") == f"{gguf}\n"
    assert str(config_folder()) in run("where")
    assert json.loads(run("list", "--json"))[-1]["verified"] == "yes"
    models_folder().mkdir()
    copy = models_folder() / "mine.gguf"
    copy.write_bytes(gguf.read_bytes())
    assert "Aborted" in run("rm", "mine", answer="n\n")
    assert copy.exists()
    assert run("rm", "mine", "--yes") == f"deleted {copy}\nmine is no longer in models.toml\n"
    assert gguf.exists()
    assert not copy.exists()
    with pytest.raises(ModelMissing, match="nothing to delete"):
        run("rm", "smollm2")
