"""What the README says is true: its code runs, its commands and files are there, its figures are the committed ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import dgpde
from benchmarks.report import with_results

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_code_runs_and_ends_in_a_gradient() -> None:
    code, network, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["run"].psi.shape == names["run"].theta.shape == (31, 40, 64)
    for leaf in (names["k_sat"], names["rain"]):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert (leaf.grad != 0).any()
    exec(compile(network, "README.md", "exec"), names)
    flow = names["dgpde"].Richards(names["grid"], names["soil"])
    flow.solve(-1.0, [0.0, 3600.0]).theta.sum().backward()
    for part in ("net", "site"):
        assert any((weight.grad != 0).any() for weight in names[part].parameters() if weight.grad is not None)


def test_the_code_of_large_fields_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"torch": torch, "dgpde": dgpde, "times": [0.0, 3600.0, 7200.0]}
    exec(compile(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[2], "README.md", "exec"), names)
    assert float(names["start"].mass_balance_error) < 1e-9
    assert (tmp_path / "hill.xdmf").exists()


def test_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_files_that_it_names_exist() -> None:
    for name in re.findall(r"\]\(([\w./]+)\)|`((?:dgpde|benchmarks)/[\w./]*)`", README):
        assert (ROOT / (name[0] or name[1])).exists(), name


def test_figures_are_those_of_the_committed_results() -> None:
    assert with_results(README) == README, "run: python -m benchmarks.report --readme"
