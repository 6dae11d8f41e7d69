"""How the column engine fares on four times 2,000 random hard columns: `python -m benchmarks.robustness`.

Prints a table and writes benchmarks/results/robustness.json: for all columns, each seed and each stratum
(kind of boundary, initial state, air entry, smallest n, ...) how many fail, are cut or restarted, and Newton
iterations a step. A column also counts as failed when it takes more than `--max-steps` accepted steps. The columns
are those of tests/hard_columns.py, the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import ROOT, surroundings
from tests.hard_columns import COLUMNS, hard_columns

RESULT = ROOT / "benchmarks" / "results" / "robustness.json"
BALANCE = 1e-9  # of the water moved


def measure(
    columns: int, seeds: list[int], max_steps: int
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Counts [seeds * columns] by name, and the labels of each stratum, the seed among them."""
    counts: dict[str, list[NDArray[Any]]] = {}
    labels: dict[str, list[str]] = {}
    groups = ((seed, group) for seed in seeds for group in hard_columns(columns, seed))
    for number, group in groups:
        with torch.no_grad():
            run = group.solve(max_steps=max_steps)
        found = {
            "status": run.status,
            "steps": run.stats.steps,
            "iterations": run.stats.newton_iterations,
            "cuts": run.stats.cuts,
            "rejections": run.stats.rejections,
            "restarts": run.stats.restarts,
            "balance": run.mass_balance_error,
            "moved": run.water_moved,
            "noise": group.round_off(run),
        }
        for name, value in found.items():
            counts.setdefault(name, []).append(value.numpy())
        for name, values in ({"seed": [str(number)] * group.n} | group.labels).items():
            labels.setdefault(name, []).extend(values)
    return {name: np.concatenate(values) for name, values in counts.items()}, labels


def summary(counts: dict[str, NDArray[Any]], chosen: NDArray[Any]) -> dict[str, float]:
    """What a row of the table shows."""
    c = {name: values[chosen] for name, values in counts.items()}
    finished = c["status"] == 0
    per_step = c["iterations"] / np.maximum(c["steps"], 1)
    imbalance = c["balance"] * c["moved"]
    open_balance = finished & (imbalance > BALANCE * c["moved"] + c["noise"])
    return {
        "columns": int(chosen.sum()),
        "failed": int((~finished).sum()),
        "with a cut": int((c["cuts"] > 0).sum()),
        "with a restart": int((c["restarts"] > 0).sum()),
        "iterations a step, all": float(c["iterations"].sum() / max(c["steps"].sum(), 1)),
        "iterations a step, median column": float(np.median(per_step)),
        "iterations a step, 99 %": float(np.percentile(per_step, 99)),
        "steps a column": float(c["steps"].mean()),
        "rejections a column": float(c["rejections"].mean()),
        "cuts a column": float(c["cuts"].mean()),
        "balance open": int(open_balance.sum()),
        "balance within round-off only": int((finished & (c["balance"] > BALANCE) & ~open_balance).sum()),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=COLUMNS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--max-steps", type=int, default=5000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    counts, labels = measure(arguments.columns, arguments.seeds, arguments.max_steps)
    seconds = time.process_time() - begun
    rows = {"all": summary(counts, np.full(counts["status"].shape, True))}
    for stratum, values in labels.items():
        named = np.array(values)
        for name in sorted(set(values)):
            rows[f"{stratum}: {name}"] = summary(counts, named == name)
    print(f"{'':36s} columns failed    cut restarted  iterations a step: all, median, 99 %   balance open")
    for name, row in rows.items():
        print(
            f"{name:36s} {row['columns']:7.0f} {row['failed']:6.0f} {row['with a cut']:6.0f} "
            f"{row['with a restart']:9.0f} {row['iterations a step, all']:24.2f} "
            f"{row['iterations a step, median column']:7.2f} {row['iterations a step, 99 %']:6.1f} "
            f"{row['balance open']:14.0f}"
        )
    failed = [
        {"column": int(i) % arguments.columns, "status": int(counts["status"][i])}
        | {name: values[i] for name, values in labels.items()}
        for i in np.flatnonzero(counts["status"] != 0)
    ]
    result = {"seeds": arguments.seeds, "max_steps": arguments.max_steps, "processor_seconds": seconds}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(surroundings() | result | {"rows": rows, "failed": failed}, indent=1) + "\n")
    print(f"{seconds:.1f} processor seconds; written to {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
