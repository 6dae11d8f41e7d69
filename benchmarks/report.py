"""Print the committed results as a table, and put it into the README.

python -m benchmarks.report                print
python -m benchmarks.report --readme       rewrite the part of README.md between the two marks
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.measure import ROOT
from benchmarks.registry import CASES
from benchmarks.run import RESULTS

BEGIN, END = "<!-- results: python -m benchmarks.report --readme -->", "<!-- end of results -->"
PEERS = {
    "jax": "JAX",
    "torch": "PyTorch",
    "icc0": "ICC(0)-CG",
    "ruge-stuben": "Ruge-Stuben AMG",
    "smoothed-aggregation": "smoothed aggregation AMG",
}


def times(ratios: dict[str, float], peer: str) -> str:
    """Forward and forward + backward advantage over a peer, or a dash."""
    pair = [ratios.get(f"{peer} {kind}") for kind in ("forward", "gradient")]
    if pair[0] is None:
        return "-"
    return " / ".join("-" if value is None else f"{value:.3g}x" for value in pair)


def memory(peak: dict[str, float]) -> str:
    """Bytes above those of the process before the run, and what `plan` said where it can, for the largest run."""
    kind = "backward" if "backward" in peak else "forward"
    used = (peak[kind] - peak["start"]) / 2**20
    planned = peak.get(f"planned {kind}")
    text = f"{used:.0f} MB" if planned is None else f"{used:.0f} ({planned / 2**20:.0f}) MB"
    return text if kind == "backward" else f"{text}, forward only"


def table(record: dict[str, Any]) -> list[str]:
    """One case as Markdown."""
    around = record["surroundings"]
    entries = {int(size): entry for size, entry in record["sizes"].items()}
    peers = [name for name in PEERS if any(name in e.get("baselines", {}) for e in entries.values())]
    gpus = {
        e["dgpde"]["extra"]["gpu"] for e in entries.values() if "gpu" in e.get("dgpde", {}).get("extra", {})
    }
    where = ", ".join(sorted(gpus)) if gpus else f"one core of {around['processor']}"
    versions = [f"torch {around['versions']['torch']}"] + sorted(
        {
            e["baselines"][name]["extra"]["version"]
            for e in entries.values()
            for name in peers
            if "extra" in e.get("baselines", {}).get(name, {})
        }
    )
    head = [
        "columns",
        "cell-steps/s forward",
        "iterations a step",
        "backward / forward",
        "memory with gradient (planned)",
    ]
    head += [f"faster than {PEERS[name]}, forward / with gradient" for name in peers]
    lines = [
        f"**{record['title']}** ({where}; {'; '.join(versions)}; commit {around['commit']}, {around['date']})",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    clock = "wall_least" if gpus else "cpu_least"
    for size, entry in sorted(entries.items()):
        if "error" in entry:
            lines.append(f"| {size} | not timed: {entry['error']} |" + " |" * (len(head) - 2))
            continue
        own = entry["dgpde"]
        forward = own["forward"][clock]
        spread = own["forward"]["cpu_spread"]
        ratio = own["backward"][clock] / forward if own["backward"] else None
        cells = [
            f"{size}",
            f"{own['cell_steps'] / forward:.3g} (spread {spread:.0%} of {own['forward']['repeats']})",
            f"{own['newton_iterations']:.2f}",
            "-" if ratio is None else f"{ratio:.2f}",
            memory(own["peak_memory"]),
        ]
        cells += [times(entry["ratios"], name) for name in peers]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(device: str | None = None) -> str:
    """All committed results, as Markdown; says so when there are none."""
    devices = [device] if device else ["cpu", "cuda"]
    names = [f"{case}-{where}.json" for case in CASES for where in devices]  # other records have other forms
    chosen = [json.loads((RESULTS / name).read_text()) for name in names if (RESULTS / name).exists()]
    if not chosen:
        return "No results have been recorded yet."
    return "\n\n".join("\n".join(table(record)) for record in chosen)


def with_results(readme: str) -> str:
    """The README's text with the current results between its two marks."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{report()}\n\n{END}{after}"


def main() -> None:
    """Print, or rewrite the README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    if options.readme:
        path = ROOT / "README.md"
        path.write_text(with_results(path.read_text()))
    else:
        print(report(options.device))


if __name__ == "__main__":
    main()
