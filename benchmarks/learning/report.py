"""Print the committed results of the experiments of learning as tables, and put them into the README.

python -m benchmarks.learning.report             print
python -m benchmarks.learning.report --readme    rewrite the part of README.md between the two marks
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks.learning.record import FOLDER
from benchmarks.measure import ROOT

BEGIN, END = "<!-- learning: python -m benchmarks.learning.report --readme -->", "<!-- end of learning -->"
Record = dict[str, Any]


def read(name: str) -> Record:
    """A committed record."""
    found: Record = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def cell(found: Record, name: str, scale: float = 1.0) -> str:
    """Median and range over the seeds; a dash for what was not measured."""
    if name not in found["spread"]:
        return "-"
    least, median, largest = (scale * found["spread"][name][end] for end in ("least", "median", "largest"))
    return f"{median:.2g} ({least:.2g}-{largest:.2g})"


def lines(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)] + [""]


def flux() -> list[str]:
    """The unknown flux."""
    record = read("surface_flux")
    names = ("theta error %", "psi error %", "total flux error %", "flux error %", "seconds")
    head = [
        "Unknown surface flux of a layered column",
        "theta %",
        "psi %",
        "flux in total %",
        "flux in time %",
        "s",
    ]
    rows = [
        [way, *(cell(record[way], name) for name in names)] for way in ("start learned too", "start given")
    ]
    published = record["published PINN"]
    bounds = ["{:g}-{:g}".format(*published[name]) if name in published else "-" for name in names]
    rows.append(["PINN (Bandai & Ghezzehei 2022)", *bounds[:-1], f"{published['seconds'][0]:g}"])
    return lines(head, rows)


def profile() -> list[str]:
    """K(psi) from a steady profile."""
    record = read("steady_profile")
    names = ("mean K error %", "largest K error %", "mean, form known %", "largest, form known %")
    head = [
        "K(psi) from 8 heads of one steady profile",
        "error of K %, mean",
        "largest",
        "form of K known, mean",
        "largest",
    ]
    ways = ("exact", "noise 1 mm", "noise 1 cm")
    return lines(head, [[way, *(cell(record[way], name) for name in names)] for way in ways])


def curves() -> list[str]:
    """Free-form curves from moisture."""
    record = read("soil_curves")
    names = (
        "log10 K, seen",
        "log10 diffusivity, seen",
        "theta, seen",
        "theta, unseen depths",
        "theta, 30 days after",
        "bottom flux error %",
    )
    head = [
        "theta(psi) and K(psi) from moisture",
        "log10 K, range seen",
        "log10 K dpsi/dtheta",
        "theta(psi)",
        "theta, other depths",
        "theta, 30 days on",
        "bottom flux %",
    ]
    rows = [
        [f"{name} soil: {way}", *(cell(found, entry) for entry in names)]
        for name in ("bimodal", "films")
        for way, found in record[name].items()
        if isinstance(found, dict)
    ]
    return lines(head, rows)


def designs() -> list[str]:
    """What moisture can tell of the curves."""
    record = read("identifiability")
    names = ("log10 K, seen", "log10 K, 0.1-1 m", "log10 K, 1-10 m", "log10 K, 10-100 m", "theta, seen")
    head = [
        "What moisture leaves open: standard deviations by linear theory",
        "log10 K, range seen",
        "0.1-1 m",
        "1-10 m",
        "10-100 m",
        "theta, range seen",
    ]
    rows = [
        [f"{name} soil: {design}", *(f"{row[entry]:.2g}" for entry in names)]
        for name in ("bimodal", "films")
        for design, row in record[name].items()
    ]
    return lines(head, rows)


def lengths() -> list[str]:
    """How much data."""
    record = read("data_efficiency")
    names = (
        "theta",
        "theta, unseen depths",
        "drainage mm/d",
        "evapotranspiration mm/d",
        "storage mm",
    )
    head = ["Test year with drought and storms, by days of record", *names]
    rows = [
        [f"{length}: {way}", *(cell(record[way][length], name) for name in names)]
        for length in record["hybrid"]
        for way in ("hybrid", "calibrated physics", "LSTM")
    ]
    return lines(head, rows)


def measured() -> list[str]:
    """Stations."""
    record = read("stations")
    names = ("later", "later, dry spells", "later, storms")
    head = [
        "Measured moisture of four stations: error of theta, September to December",
        "all days",
        "dry spells",
        "storms",
    ]
    ways = ("hybrid", "calibrated physics", "LSTM", "last reading")
    rows = [
        [f"{length}: {way}", *(cell(record[way][length], name) for name in names)]
        for length in record["last reading"]
        for way in ways
    ]
    elsewhere = [
        [f"{name}: {way}", *(cell(record[way][name], kind) for kind in ("record", "later"))]
        for name in ("unseen depths", "unseen sites")
        for way in ways[:3]
    ]
    title = "Where nothing was measured, trained on 184 days elsewhere"
    return lines(head, rows) + lines([title, "March to August", "September to December"], elsewhere)


def stress() -> list[str]:
    """The response of roots."""
    record = read("root_stress")
    names = (
        "a, where roots were",
        "transpiration mm/d, record",
        "transpiration mm/d, test year",
        "transpiration mm/d, drought",
        "transpiration, drought, total %",
        "theta, test year",
    )
    head = [
        "Response of roots from moisture alone",
        "a(psi), where roots were",
        "transpiration mm/d, record",
        "next year",
        "its drought",
        "its drought in total %",
        "theta, next year",
    ]
    ways = ("learned response", "calibrated Feddes", "Feddes of grass")
    return lines(head, [[way, *(cell(record[way], name) for name in names)] for way in ways])


def soils() -> list[str]:
    """UNSODA."""
    record = read("unsoda")
    names = ("theta, rms", "theta, median soil", "log10 K, rms", "log10 K, median soil")
    title = f"{record['soils']} soils of UNSODA, {record['with K']} with K, split by publication"
    ways = ("network", "same without departure", "regression", "own fit")
    rows = [[way, *(cell(record[way], name) for name in names)] for way in ways]
    return lines([title, *names], rows)


def cost() -> list[str]:
    """One epoch."""
    found = read("epoch")
    head = ["One epoch on one core", "forward, s", "gradient, s", "peak memory, GB"]
    title = f"{found['columns']} columns x {found['days']} days of hourly forcing x {found['cells']} cells"
    names = ("forward, processor s", "gradient, processor s", "peak memory, GB")
    return lines(head, [[title, *(f"{found[name]:.3g}" for name in names)]])


def price() -> list[str]:
    """Routes."""
    record = read("routes")
    names = ("forward, times", "forward and gradient, times")
    title = f"Price of a step, {record['columns']} columns x {record['cells']} cells, one core"
    rows = [[way, *(f"{row[name]:.2f}" for name in names)] for way, row in record["ways"].items()]
    return lines([title, "forward", "with gradient"], rows)


def report() -> str:
    """All tables."""
    parts = [
        flux(),
        profile(),
        curves(),
        designs(),
        lengths(),
        measured(),
        stress(),
        soils(),
        cost(),
        price(),
    ]
    return "\n".join(line for part in parts for line in part)


def with_results(readme: str) -> str:
    """The README's text with the committed results between its two marks."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + "\n\n" + report() + "\n" + END + rest.split(END)[1]


def main() -> None:
    """Print, or rewrite the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--readme", action="store_true")
    if parser.parse_args().readme:
        path = ROOT / "README.md"
        path.write_text(with_results(path.read_text()))
    else:
        print(report())


if __name__ == "__main__":
    main()
