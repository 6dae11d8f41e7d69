"""The tutorial runs, on a small setting, and its networks fit better than what they start from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the tutorial draws figures")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_learning_relations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("learn_relations", EXAMPLES / "learn_relations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(["--days", "3", "--iterations", "12", "--out", str(tmp_path)])
    assert set(found) == {"van Genuchten", "with networks"}
    misfits = [float(line.split()[-3]) for line in capsys.readouterr().out.splitlines() if "misfit" in line]
    assert misfits[1] < misfits[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "moisture.png"]
