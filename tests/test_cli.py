"""`dgpde info` and `dgpde demo`: what they print, and what they say when something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dgpde
from dgpde import cli


def test_info_names_versions_and_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    for text in (dgpde.__version__, torch.__version__, "cpu", "cuda", "reference"):
        assert text in printed


def test_the_native_module_is_found_with_its_instruction_set() -> None:
    state = cli.backends()["cpu"]
    assert state.startswith("available")
    assert state.split()[-1] in ("avx512", "avx2", "generic")


def test_cuda_is_available_or_says_why_not() -> None:
    state = cli.backends()["cuda"]
    assert state.startswith("available: ") or (state.startswith("not available: ") and len(state) > 40)


def test_a_missing_native_module_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("dgpde._C: the native module does not load (no such file)")

    monkeypatch.setattr(cli, "native_module", missing)
    assert "no such file" in cli.backends()["cpu"]
    assert "no such file" in cli.backends()["cuda"]
    assert cli.main(["info"]) == 0


def test_demo_hands_its_arguments_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def run_demo(site: str, output: str | None, iterations: int | None) -> Path:
        calls.append((site, output, iterations))
        return tmp_path

    monkeypatch.setattr("dgpde.demos.run_demo", run_demo)
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "--site", "uscrn", "--output", str(tmp_path), "--iterations", "3"]) == 0
    assert calls == [("maricopa", None, None), ("uscrn", str(tmp_path), 3)]


def test_demo_without_matplotlib_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["demo"]) == 1
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--site", "nowhere"], "--site"),
        (["demo", "--iterations", "-1"], "--iterations: must not be negative"),
        ([], "command"),
    ],
    ids=["site", "iterations", "none"],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert message in capsys.readouterr().err


def test_the_module_runs_as_a_command() -> None:
    run = subprocess.run([sys.executable, "-m", "dgpde", "info"], capture_output=True, text=True, check=True)
    assert "backends of column flow" in run.stdout


def test_import_loads_no_native_code_and_no_optional_package() -> None:
    code = (
        "import sys, dgpde\n"
        "heavy = {'dgpde._C', 'matplotlib', 'xarray', 'h5py', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
