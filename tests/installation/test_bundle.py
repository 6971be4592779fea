"""Bundles: what they carry, that they install where there is no network, and that they trust nothing."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from sgft_edge import bundle
from sgft_edge.errors import InputError, SgftError
from sgft_edge.installation import wheels
from sgft_edge.store.manifest import Entry, put

APART = ["unshare", "--map-root-user", "--net"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    """A bundle with a tiny model of one's own; its archive lies beside it."""
    folder = tmp_path_factory.mktemp("bundles") / "a bundle"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SGFT_EDGE_MODELS", "SGFT_EDGE_CONFIG", "SGFT_EDGE_CACHE"):
            patch.setenv(name, str(folder.with_name(name)))
        elsewhere = folder.with_name("llama.gguf")
        elsewhere.symlink_to(llama)
        assert bundle.main(["--out", str(folder), "--models", str(elsewhere)]) == 0
    return folder


@pytest.fixture
def unpacked(made: Path, tmp_path: Path) -> Path:
    with tarfile.open(f"{made}.tar.gz") as archive:
        archive.extractall(tmp_path / "other machine", filter="data")
    return tmp_path / "other machine" / made.name


def run(script: Path, *arguments: str, before: list[str] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a bundle's script with nothing of this user's around it."""
    home = script.parent.parent / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        [*(before or []), str(script), *arguments],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", **env},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_what_a_bundle_has(made: Path) -> None:
    sums = dict(reversed(line.split("  ")) for line in (made / "SHA256SUMS").read_text().splitlines())
    files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert set(sums) == files - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest
    assert not [path for path in made.rglob("*") if path.is_symlink()]
    listing = json.loads((made / "manifest.json").read_text())
    assert listing["models"]["llama"]["sha256"] == sums["models/llama.gguf"]
    required = (made / "requirements.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in required} == set(listing["wheels"])
    assert {"sgft-edge", "llama_cpp_python", "numpy", "click"} <= set(listing["wheels"])
    assert not {"torch", "transformers", "pytest", "openai"} & set(listing["wheels"])
    assert all(" --hash=sha256:" in line for line in required)
    assert (made / "licences" / "README.txt").read_text().count("\n") == len(required) + 1 + 2
    assert any("MIT" in path.read_text() for path in (made / "licences").rglob("LICENSE*"))
    assert "@TARGET@" not in "".join((made / name).read_text() for name in ("install.sh", "run.sh", "README.txt"))


def test_the_models_that_come_with_the_package_are_in_its_wheel(made: Path) -> None:
    (wheel,) = (made / "wheels").glob("sgft_edge-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "sgft_edge/shipped/smollm2-guide.Q8_0.gguf" in names
    assert "sgft_edge/installation/carried/run.sh" in names
    assert "sgft_edge/server/web/index.html" in names


def test_it_answers_where_there_is_no_network(unpacked: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run([*APART, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no one make a network namespace")
    probe = "import socket; socket.create_connection(('1.1.1.1', 53), 3)"
    assert subprocess.run([*APART, sys.executable, "-c", probe], capture_output=True).returncode == 1
    ask = ("solve", "--guide", "llama", "--adapter", "none", "--strategy", "direct", "--max-tokens", "4", "3 and 4?")
    first = run(unpacked / "run.sh", *ask, before=APART)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Answer\nThe answer is")
    assert run(unpacked / "run.sh", *ask, before=APART).stdout == first.stdout
    verified = run(unpacked / "run.sh", "models", "verify", "llama", before=APART)
    assert verified.returncode == 0, verified.stderr
    assert not list((unpacked.parent / "home").rglob("*"))  # nothing is left outside of the folder

    (unpacked / "env" / "installed").unlink()  # as if it had been cut off
    (unpacked / "env" / "bin" / "python").unlink()
    assert run(unpacked / "run.sh", *ask, before=APART).stdout == first.stdout

    with (unpacked / "models" / "llama.gguf").open("r+b") as model:
        model.seek(-1, os.SEEK_END)
        model.write(b"\x7f")
    for script in ("run.sh", "install.sh"):
        refused = run(unpacked / script, *ask)
        assert refused.returncode == 1
        assert "models/llama.gguf: FAILED" in refused.stderr
        assert lines(refused.stderr)[-1].startswith("install.sh: expected the files that SHA256SUMS names")


def test_another_python_is_refused(unpacked: Path, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 2.7 linux x86_64\n")
    other.chmod(0o755)
    refused = run(unpacked / "install.sh", PYTHON=str(other))
    assert refused.returncode == 1
    assert "found 2.7 linux x86_64: name another interpreter in PYTHON" in refused.stderr
    assert "found no nowhere" in run(unpacked / "install.sh", PYTHON="nowhere").stderr
    assert not (unpacked / "env").exists()


def test_the_same_again_is_the_same(made: Path, tmp_path: Path, llama: Path) -> None:
    for name in ("anyio", "llama-cpp-python"):
        first, second = tmp_path / "first", tmp_path / "second"
        for folder in (first, second):
            folder.mkdir(exist_ok=True)
        one = wheels.make_wheel(distribution(name), first)
        assert one.read_bytes() == wheels.make_wheel(distribution(name), second).read_bytes()


def test_a_wheel_has_what_was_installed(tmp_path: Path) -> None:
    """Built, installed, made a wheel again, and installed again: files, a script of its own, data, an entry point."""
    source = tmp_path / "source"
    (source / "odd_one").mkdir(parents=True)
    (source / "odd_one" / "__init__.py").write_text("def main():\n    print('from the entry point')\n")
    (source / "odd_one" / "data.txt").write_text("data")
    (source / "own-script").write_text("#!/bin/sh\necho from a script\n")
    (source / "note.txt").write_text("shared")
    (source / "LICENSE").write_text("A licence.")
    (source / "pyproject.toml").write_text(
        """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "odd.one"
version = "1.0"
license-files = ["LICENSE"]
[project.scripts]
odd = "odd_one:main"
[tool.hatch.build.targets.wheel]
packages = ["odd_one"]
[tool.hatch.build.targets.wheel.shared-data]
"note.txt" = "share/odd/note.txt"
[tool.hatch.build.targets.wheel.shared-scripts]
"own-script" = "own-script"
"""
    )
    again = tmp_path / "again"
    again.mkdir()
    script = f"""
import sys; sys.path[:0] = {[path for path in sys.path if path]!r}
from importlib.metadata import distribution
from pathlib import Path
from sgft_edge.installation.wheels import licence_files, make_wheel
one = distribution("odd.one")
print(make_wheel(one, Path({str(again)!r})).name, licence_files(one))
"""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    made = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(made, check=True)
    subprocess.run([first / "bin" / "python", *install, *tmp_path.glob("odd*.whl")], check=True)
    done = subprocess.run([first / "bin" / "python", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "odd_one-1.0-py2.py3-none-any.whl {'LICENSE': 'A licence.'}"
    subprocess.run([second / "bin" / "python", *install, *again.glob("*.whl")], check=True)

    def found(prefix: Path) -> dict[str, bytes]:
        files = [*prefix.glob("lib/*/site-packages/odd*/**/*"), *prefix.glob("bin/o*"), *prefix.glob("share/odd/*")]
        kept = (path for path in files if path.is_file() and path.suffix != ".pyc" and path.name != "direct_url.json")
        return {
            path.relative_to(prefix).as_posix(): path.read_bytes().replace(bytes(prefix), b"")
            for path in kept
            if path.name != "RECORD"
        }

    assert found(first) == found(second)
    assert {"bin/odd", "bin/own-script", "share/odd/note.txt"} <= set(found(second))
    for program, said in (("odd", "from the entry point"), ("own-script", "from a script")):
        assert subprocess.run([second / "bin" / program], capture_output=True, text=True).stdout.strip() == said


def test_what_a_distribution_needs() -> None:
    names = [one.name for one in wheels.closure("sgft-edge")]
    assert names == sorted(names, key=str.lower)
    assert "uvicorn" not in names
    assert {"uvicorn", "starlette", "h11"} <= {one.name for one in wheels.closure("sgft-edge", ["serve"])}
    with pytest.raises(InputError, match=r"expected extras of sgft-edge \(.*serve.*\), found nonsense"):
        wheels.closure("sgft-edge", ["nonsense"])
    with pytest.raises(SgftError, match="expected no-such-thing to be installed"):
        wheels.closure("no-such-thing")


def fails(capsys: pytest.CaptureFixture[str], status: int, *options: str) -> str:
    assert bundle.main(list(options)) == status
    (line,) = lines(capsys.readouterr().err)
    return line


def test_what_cannot_be_bundled(tmp_path: Path, llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    wanted = ("--out", str(out), "--models")
    assert "run `sgft-edge models pull smollm2`" in fails(capsys, 1, *wanted, "smollm2")
    assert "unknown model 'smolm2'" in fails(capsys, 1, *wanted, "smolm2")
    assert "which comes with the package" in fails(capsys, 2, *wanted, "smollm2-guide")
    (tmp_path / "smollm2.gguf").write_bytes(llama.read_bytes())
    assert "smollm2 is another model" in fails(capsys, 2, *wanted, str(tmp_path / "smollm2.gguf"))
    (tmp_path / "no.gguf").write_bytes(b"nothing")
    assert "is not a GGUF file" in fails(capsys, 1, *wanted, str(tmp_path / "no.gguf"))
    own = tmp_path / "own.gguf"
    shutil.copyfile(llama, own)
    entry = Entry(name="own", title="Own", role="model", file="own.gguf", licence="MIT", own=True, sha256="0" * 64)
    put(Entry(**{**{f: getattr(entry, f) for f in entry.__dataclass_fields__}, "sources": (f"file:{own}",)}))
    assert "expected the file of own, found another" in fails(capsys, 1, *wanted, "own")
    out.mkdir()
    (out / "kept").touch()
    assert "found " in fails(capsys, 2, *wanted, str(llama))
    assert [path.name for path in out.iterdir()] == ["kept"]
    (tmp_path / "file").touch()
    assert "cannot write there" in fails(capsys, 1, "--out", str(tmp_path / "file" / "x"), "--models", str(llama))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_fails_in_the_middle_leaves_what_was_there(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept").touch()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "make_wheel", full)
    line = fails(capsys, 1, "--out", str(out), "--models", str(llama), "--force")
    assert line == f"sgft-edge: error: --out {out}: cannot write there: No space left on device"
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]
    assert [path.name for path in out.iterdir()] == ["kept"]
