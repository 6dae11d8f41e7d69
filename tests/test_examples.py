"""The tutorials run, on a small setting, and their networks fit better than what they start from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("matplotlib", reason="the tutorial draws figures")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_learning_relations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = example("learn_relations").main(["--days", "3", "--iterations", "12", "--out", str(tmp_path)])
    assert set(found) == {"van Genuchten", "with networks"}
    misfits = [float(line.split()[-3]) for line in capsys.readouterr().out.splitlines() if "misfit" in line]
    assert misfits[1] < misfits[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "moisture.png"]


def test_learning_a_reaction(tmp_path: Path) -> None:
    found = example("learn_reaction").main(
        ["--seeds", "1", "--days", "2", "--iterations", "6", "--out", str(tmp_path)]
    )
    assert set(found) == {"first order", "network"}
    assert found["network"][0] < 0.5 * found["first order"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["laws.png", "outlets.png"]
