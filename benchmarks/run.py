"""Run the cases and write one record each to results/<case>-<device>.json.

    python -m benchmarks.run                          every case of the CPU, one core each
    python -m benchmarks.run --case celia --size 64
    python -m benchmarks.run --device cuda

Each measurement has a process of its own, so that peak memory means something, bound to one core on the CPU. A
measurement whose check values are missed is not timed: the run goes on with the others and ends with an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, one_core, surroundings
from benchmarks.registry import CASES, Baseline, Case

RESULTS = ROOT / "benchmarks" / "results"


def child(command: list[str]) -> dict[str, Any]:
    """Run one measurement; its last line is the record. {"error": ...} when it failed."""
    print(" ", " ".join(Path(word).name for word in command), flush=True)
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        last = (run.stderr.strip() or "no message").splitlines()[-1]
        print(f"    failed: {last}", flush=True)
        return {"error": last}
    record: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return record


def baseline(entry: Baseline, size: int, peer_python: str) -> dict[str, Any] | None:
    """One baseline at one size; None when it has none there, or the package that it needs is not installed."""
    if size not in entry.arguments:
        return None
    python = peer_python if entry.needs else sys.executable
    if entry.needs:
        found = (
            Path(python).exists()
            and not subprocess.run([python, "-c", f"import {entry.needs}"], capture_output=True).returncode
        )
        if not found:
            print(f"    {entry.name}: left out, {python} has no {entry.needs}", flush=True)
            return None
    command = [python, "-m", f"benchmarks.baselines.{entry.module}", "--columns", str(size)]
    return child([*command, *entry.arguments[size].split()])


def ratios(own: dict[str, Any], peers: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times less processor time dgpde takes than each baseline, for a cell and a time step.

    Baselines of a fixed-step case do the same steps; where steps differ, time a cell-step is what is compared.
    """
    found: dict[str, float] = {}
    if own["backward"]:
        found["backward/forward"] = own["backward"]["cpu_least"] / own["forward"]["cpu_least"]
    if "batch/cuts" in own["extra"]:
        found["batch/cuts"] = own["extra"]["batch/cuts"]
    for name, peer in peers.items():
        if "error" in peer:
            continue
        for kind in ("forward", "gradient"):
            if own[kind] and peer[kind]:
                theirs = peer[kind]["cpu_least"] / peer["cell_steps"]
                found[f"{name} {kind}"] = theirs / (own[kind]["cpu_least"] / own["cell_steps"])
    return found


def compare(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Print how the times changed since the record that is about to be replaced."""
    for size, entry in now["sizes"].items():
        old = before["sizes"].get(size, {}).get("dgpde")
        if old is None or "error" in entry:
            continue
        change = {
            kind: entry["dgpde"][kind]["cpu_least"] / old[kind]["cpu_least"]
            for kind in ("forward", "backward")
            if entry["dgpde"][kind] and old[kind]
        }
        text = ", ".join(f"{kind} {value:.2f}" for kind, value in change.items())
        print(f"    {size}: time relative to commit {before['surroundings']['commit']}: {text}", flush=True)


def run_case(case: Case, device: str, sizes: list[int], names: list[str], peer_python: str) -> bool:
    """Measure one case beside the baselines of these names; whether every measurement passed its checks.

    The record is written after each size, so that a run that is stopped leaves what it has measured.
    """
    print(f"{case.name}: {case.title}, {device}", flush=True)
    record: dict[str, Any] = {"case": case.name, "title": case.title, "device": device, "sizes": {}}
    record["surroundings"] = surroundings()
    chosen = [entry for entry in case.baselines if device == "cpu" and entry.name in names]
    path = RESULTS / f"{case.name}-{device}.json"
    before = json.loads(path.read_text()) if path.exists() else None
    RESULTS.mkdir(exist_ok=True)
    good = True
    for size in sizes:
        own = child([sys.executable, "-m", "benchmarks.run", "--child", case.name, device, str(size)])
        if "error" in own:
            record["sizes"][str(size)] = own
            good = False
        else:
            found = {entry.name: baseline(entry, size, peer_python) for entry in chosen}
            peers = {name: peer for name, peer in found.items() if peer is not None}
            good &= all("error" not in peer for peer in peers.values())
            entry = {"dgpde": own, "baselines": peers, "ratios": ratios(own, peers)}
            record["sizes"][str(size)] = entry
            print(
                "   ", ", ".join(f"{name} {value:.3g}" for name, value in entry["ratios"].items()), flush=True
            )
        path.write_text(json.dumps(record, indent=1) + "\n")
    if before is not None:
        compare(before, record)
    print("  wrote", path.relative_to(ROOT), flush=True)
    return good


def measure_here(name: str, device: str, size: int) -> None:
    """The child's part: measure dgpde in this process and print the record."""
    extra: dict[str, Any] = {}
    if device == "cpu":
        one_core()
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    else:
        from dgpde._native import cuda_missing, native_module

        missing = cuda_missing(native_module())
        if missing is not None:
            raise RuntimeError(f"--device cuda: {missing}")
        extra["gpu"] = torch.cuda.get_device_name()
    case = CASES[name]
    measurement = case.measure()(size, device, case.repeats.get(device, {}).get(size, 3))
    measurement.extra |= extra
    print(json.dumps(measurement.as_dict()))


def main() -> int:
    """Parse the command line; 1 when a check was missed or a measurement failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="repeatable; default: all")
    parser.add_argument(
        "--size", action="append", type=int, help="numbers of columns; default: the case's own"
    )
    names = sorted({entry.name for case in CASES.values() for entry in case.baselines})
    parser.add_argument("--baseline", action="append", choices=names, help="repeatable; default: all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--peer-python",
        default=".venv-bench/bin/python",
        help="a Python that has the packages of the baselines",
    )
    parser.add_argument("--child", nargs=3, metavar=("CASE", "DEVICE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, device, size = options.child
        measure_here(name, device, int(size))
        return 0
    good = True
    for name in options.case or [name for name, case in CASES.items() if options.device in case.repeats]:
        sizes = options.size or list(CASES[name].repeats.get(options.device) or CASES[name].repeats["cuda"])
        good &= run_case(
            CASES[name],
            options.device,
            sizes,
            options.baseline or names,
            str(ROOT / options.peer_python),
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
