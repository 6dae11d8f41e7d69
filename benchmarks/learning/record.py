"""What every experiment of learning leaves behind: a record, a table of its seeds, a figure."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.measure import ROOT, surroundings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = ROOT / "benchmarks" / "results" / "learning"
Row = dict[str, float]


def arguments(description: str | None, seeds: int) -> argparse.ArgumentParser:
    """The command line that the experiments share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds, from 0; default {seeds}")
    return parser


def spread(rows: Sequence[Row]) -> dict[str, Row]:
    """Least, median and largest of every number over the seeds."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        found[name] = {"least": min(values), "median": statistics.median(values), "largest": max(values)}
    return found


def table(title: str, rows: Sequence[Row]) -> str:
    """The spread over the seeds as text."""
    lines = [f"{title} ({len(rows)} seeds)", f"  {'':28}{'least':>12}{'median':>12}{'largest':>12}"]
    for name, found in spread(rows).items():
        lines.append(f"  {name:28}" + "".join(f"{value:12.4g}" for value in found.values()))
    return "\n".join(lines)


def write(name: str, record: dict[str, Any], figure: Figure | None = None) -> None:
    """Write `<name>.json`, with machine, versions, commit and date, and `<name>.png`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(
        json.dumps({"experiment": name, "surroundings": surroundings()} | record, indent=1) + "\n"
    )
    print("wrote", path.relative_to(ROOT))
    if figure is not None:
        figure.savefig(path.with_suffix(".png"), dpi=110, bbox_inches="tight")
        print("wrote", path.with_suffix(".png").relative_to(ROOT))
