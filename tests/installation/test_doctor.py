"""`sgft-edge doctor` on installations that something is wrong with; each advice comes from what it speaks of."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sgft_edge import doctor
from sgft_edge.host.files import config_folder, models_folder
from sgft_edge.host.machine import Memory
from sgft_edge.installation.advice import advise, in_range
from sgft_edge.installation.diagnosis import Report, examine
from sgft_edge.llama.build import LlamaBuild, parse_flags
from sgft_edge.reasoning.settings import DEFAULT_MODEL
from sgft_edge.solving.default import use
from sgft_edge.store import digests, places
from sgft_edge.store.manifest import Entry, put


@pytest.fixture
def default_model(gguf: Path) -> Path:
    """The default model in the models folder, whole."""
    models_folder().mkdir()
    path = models_folder() / "model.gguf"
    path.write_bytes(gguf.read_bytes())
    put(default_entry(path))
    return path


def default_entry(path: Path, memory_mb: int | None = None) -> Entry:
    return Entry(
        name=DEFAULT_MODEL,
        title="Default",
        role="model",
        file=path.name,
        licence="MIT",
        sha256=digests.file_digest(path),
        memory_mb=memory_mb,
        own=True,
    )


@pytest.fixture(autouse=True)
def no_openmp_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OMP_")]:
        monkeypatch.delenv(name)


def run(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], dict[str, bool]]:
    """Exit status, the report, and `broken` by the advice's text."""
    status = doctor.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    return status, report, {advice["text"]: advice["broken"] for advice in report["advice"]}


def only(advice: dict[str, bool], *parts: str) -> bool:
    """The `broken` of the one advice that has all parts."""
    (text,) = [text for text in advice if all(part in text for part in parts)]
    return advice[text]


def texts(report: Report) -> str:
    return "\n".join(advice.text for advice in advise(report))


@pytest.mark.usefixtures("default_model")
def test_sound_installation(capsys):
    status, report, advice = run(capsys)
    assert status == 0
    assert report["works"]
    assert report["failures"] == {}
    assert report["versions"]["llama_cpp_python"]
    assert report["llama"]["flags"]
    assert report["llama"]["devices"][0]["total_bytes"] > 0
    assert next(m for m in report["models"] if m["name"] == DEFAULT_MODEL)["verified"] == "yes"
    assert not any(advice.values())


@pytest.mark.usefixtures("default_model")
def test_plain_output(capsys):
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line and line[0] != " "] == [
        "Versions",
        "Machine",
        "llama.cpp",
        "Models",
        "Folders",
        "Advice",
    ]
    assert str(models_folder()) in out
    assert "\x1b" not in out


def test_no_model(capsys):
    status, report, advice = run(capsys)
    assert status == 1
    assert not report["works"]
    assert only(advice, "no model is on this machine: run `sgft-edge models pull`")


def test_damaged_model(capsys, default_model):
    default_model.write_bytes(default_model.read_bytes()[:-1])
    status, _, advice = run(capsys)
    assert status == 1
    assert only(advice, str(default_model), "damaged", f"run `sgft-edge models pull {DEFAULT_MODEL}`")


def test_a_smaller_model_does_its_work_and_is_told(capsys, gguf):
    places.add("smollm2", gguf, force=True)
    status, report, advice = run(capsys)
    assert status == 0
    assert report["default"]["name"] == "smollm2"
    assert not only(advice, "smollm2 answers", f"{DEFAULT_MODEL} is not on this machine, `sgft-edge models pull`")


@pytest.mark.usefixtures("default_model")
def test_the_users_own_default(capsys, gguf):
    places.add("mine", gguf)
    use("mine")
    status, report, _ = run(capsys)
    assert (status, report["default"]) == (0, {"name": "mine", "why": "it is your default"})
    assert doctor.main([]) == 0
    assert "  default            mine (it is your default)\n" in capsys.readouterr().out
    gguf.unlink()
    status, report, advice = run(capsys)
    assert (status, report["default"]) == (1, None)
    assert only(advice, f"your default model mine cannot be had: mine is not on this machine: {gguf} is gone")


@pytest.mark.usefixtures("default_model")
def test_damaged_model_that_solve_can_do_without(capsys, gguf):
    places.add("mine", gguf)
    gguf.write_bytes(b"GGUF changed")
    status, _, advice = run(capsys)
    assert status == 0
    assert not only(advice, "mine: ", "put the right file there", f"`sgft-edge models add mine {gguf} --force`")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that even root cannot read")
def test_unreadable_model(capsys, default_model):
    put(replace(default_entry(default_model), sources=("file:/proc/self/mem",)))
    status, _, advice = run(capsys)
    assert status == 1
    assert only(advice, f"{DEFAULT_MODEL}: /proc/self/mem cannot be read: change its permissions")


@pytest.mark.usefixtures("default_model")
def test_folders_that_cannot_be_written_to(capsys, monkeypatch, gguf):
    monkeypatch.setenv("SGFT_EDGE_CACHE", str(gguf / "no folder can be in a file"))
    dangling = gguf.with_name("dangling")
    dangling.symlink_to(gguf.with_name("absent"))
    monkeypatch.setenv("SGFT_EDGE_MODELS", str(dangling))
    _, _, advice = run(capsys)
    assert not only(advice, f"the models folder {dangling} cannot be written to: set SGFT_EDGE_MODELS")
    assert not only(advice, "the cache folder", "set SGFT_EDGE_CACHE")


def test_models_file_that_cannot_be_parsed(capsys):
    config_folder().mkdir()
    (config_folder() / "models.toml").write_text("[models")
    status, report, advice = run(capsys)
    assert status == 1
    assert report["models"] is None
    assert only(advice, "models.toml is not TOML")


def fake_binding(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let child processes find this llama_cpp before the real one."""
    (folder / "llama_cpp").mkdir()
    (folder / "llama_cpp" / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("default_model")
def test_llama_cpp_does_not_import(capsys, tmp_path, monkeypatch):
    fake_binding(tmp_path, monkeypatch, "raise RuntimeError('libgomp.so.1: cannot open shared object file')")
    status, report, advice = run(capsys)
    assert status == 1
    assert report["llama"] is None
    assert report["cpu"]
    assert only(advice, "libgomp.so.1: cannot open", "pip install --force-reinstall", "'llama-cpp-python<0.4,>=0.3.36'")
    assert doctor.main([]) == 1
    assert "unknown: RuntimeError: libgomp.so.1" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(signal, "SIGILL"), reason="no such signal")
@pytest.mark.usefixtures("default_model")
def test_llama_cpp_for_another_cpu(capsys, tmp_path, monkeypatch):
    fake_binding(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    status, _, advice = run(capsys)
    assert status == 1
    assert only(advice, "SIGILL", "instructions that this CPU lacks", "--no-binary llama-cpp-python")


def test_too_little_memory(capsys, default_model):
    put(default_entry(default_model, memory_mb=10**9))
    status, _, advice = run(capsys)
    assert status == 1
    assert only(advice, "needs about 1000000000 MB of memory", "use smollm2 (--guide)")


def test_openmp_variables(capsys, monkeypatch):
    for name, value in (("OMP_NUM_THREADS", "many"), ("OMP_DYNAMIC", "TRUE")):
        monkeypatch.setenv(name, value)
    _, report, advice = run(capsys)
    assert report["openmp"] == {"OMP_NUM_THREADS": "many", "OMP_DYNAMIC": "TRUE"}
    assert not only(advice, "OMP_NUM_THREADS='many' is no number")
    assert not only(advice, "OMP_DYNAMIC")


@pytest.fixture
def report(default_model: Path) -> Report:
    """A sound report with 4 cores on an x86 CPU, to be changed into machines that are not at hand."""
    assert default_model.exists()
    llama = LlamaBuild("0", None, None, ("AVX2", "FMA", "OPENMP"), False, True, ())
    found = replace(
        examine(),
        physical_cores=4,
        cpu_features=("avx2", "fma"),
        core_quota=None,
        gpus=(),
        openmp={},
        memory=Memory(8 * 10**9, 4 * 10**9),
        llama=llama,
    )
    assert advise(found) == []
    return found


def test_advice_on_gpus(report):
    nvidia = replace(report, gpus=("NVIDIA H100",))
    assert 'NVIDIA H100: this build of llama.cpp cannot use it: run `CMAKE_ARGS="-DGGML_CUDA=on' in texts(nvidia)
    assert "-DGGML_HIP=on" in texts(replace(report, gpus=("AMD GPU",)))
    assert "check the GPU's driver" in texts(replace(nvidia, llama=replace(nvidia.llama, gpu_offload=True)))


def test_advice_on_the_build(report):
    assert "this CPU has AVX2, FMA" in texts(replace(report, llama=replace(report.llama, flags=("SSE3",))))
    arm = replace(report, cpu_features=("asimd", "asimddp"), llama=replace(report.llama, flags=("NEON", "SVE=16")))
    assert "this CPU has DOTPROD, llama.cpp" in texts(arm)
    old = replace(report, versions=replace(report.versions, llama_cpp_python="0.2.90"))
    assert "llama-cpp-python 0.2.90 is not in the supported range" in texts(old)


def test_advice_on_containers(report):
    assert "pass --threads 1" in texts(replace(report, core_quota=1.5))
    small = replace(report, default_model=replace(report.default_model, memory_mb=300))
    assert texts(small) == ""
    limited = replace(small, memory=Memory(8 * 10**9, 4 * 10**9, limit=200 * 10**6, limit_used=0))
    assert "can have at most 200: raise the control group's limit" in texts(limited)
    busy = replace(small, memory=Memory(8 * 10**9, 100 * 10**6))
    assert "100 are free: end other programs" in texts(busy)
    assert not advise(busy)[0].broken


def test_advice_on_threads(report):
    assert "pass --threads" in texts(replace(report, openmp={"OMP_NUM_THREADS": "1"}))
    assert "2 of 4 cores" in texts(replace(report, openmp={"OMP_THREAD_LIMIT": "2"}))
    assert texts(replace(report, openmp={"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"})) == ""


def test_advice_on_a_full_disk(report, default_model):
    default_model.unlink()
    folders = {name: replace(folder, free_bytes=10**6) for name, folder in report.folders.items()}
    missing = tuple(
        replace(m, path=None, bytes=98 * 10**6, verified="-") if m.name == DEFAULT_MODEL else m for m in report.models
    )
    assert "takes 117 MB" in texts(replace(report, folders=folders, models=missing))


def test_in_range():
    allowed = "<0.4,>=0.3.36"
    for version, fits in (("0.3.36", True), ("0.3.40+cu124", True), ("0.3.9", False), ("0.4.0", False)):
        assert in_range(version, allowed) is fits


def test_parse_flags():
    text = "CUDA : ARCHS = 900 | CPU : NEON = 1 | SVE_CNT = 16 | BLAS = 0 | OPENMP = 1 | "
    assert parse_flags(text) == ("ARCHS=900", "NEON", "SVE_CNT=16", "OPENMP")


def test_help_is_light():
    code = "import sys, sgft_edge.doctor, sgft_edge.bench; print(*{m.partition('.')[0] for m in sys.modules})"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert {"rich", "numpy", "llama_cpp", "jinja2"}.isdisjoint(printed.split())
