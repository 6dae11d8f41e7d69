"""The cases by name. A case says its sizes, how to measure dgpde, and which baselines run beside it.

Nothing heavy is imported here: `run.py` reads the registry and measures in child processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from benchmarks.measure import Measurement

Measure = Callable[[int, str, int], Measurement]  # size, device, repeats


@dataclass(frozen=True)
class Baseline:
    """A module of `benchmarks.baselines` with the arguments it takes at each size; sizes not named are left out."""

    name: str
    module: str
    arguments: dict[int, str]
    needs: str | None = None  # a package that is in the baselines' own Python, not in that of dgpde


@dataclass(frozen=True)
class Case:
    """One problem at several sizes (numbers of columns)."""

    name: str
    title: str
    module: str  # of benchmarks.cases
    repeats: dict[str, dict[int, int]]  # device -> size -> repeats
    baselines: tuple[Baseline, ...] = ()
    function: str = (
        "measure"  # of the module; called with (size, device, repeats), it checks first and times then
    )

    def measure(self) -> Measure:
        """The function that measures dgpde; importing it imports torch."""
        function: Measure = getattr(import_module(f"benchmarks.cases.{self.module}"), self.function)
        return function


def linear_case(name: str, title: str, columns: int, methods: tuple[str, ...]) -> Case:
    """A system of `benchmarks.linear` with the preconditioners that run beside it."""
    packages = {"icc0": "ilupp", "ruge-stuben": "pyamg", "smoothed-aggregation": "pyamg"}
    return Case(
        name=f"linear-{name}",
        title=title,
        module="linear",
        function=name,
        repeats={"cpu": {columns: 10}, "cuda": {columns: 10}},
        baselines=tuple(
            Baseline(
                method, "linear_krylov", {columns: f"--system {name} --method {method}"}, packages[method]
            )
            for method in methods
        ),
    )


CASES = {
    case.name: case
    for case in (
        Case(
            name="celia",
            title="Infiltration into a dry column (Celia et al. 1990), 100 cells, 200 steps",
            module="celia",
            repeats={
                "cpu": {1: 100, 64: 10, 1000: 5, 1024: 5, 10_000: 2, 100_000: 1},
                "cuda": {1024: 5, 100_000: 5, 1_000_000: 3},
            },
            baselines=(
                Baseline(
                    name="jax",
                    module="celia_jax",
                    arguments={1: "--repeats 100", 64: "--repeats 10", 1024: "--repeats 5"},
                    needs="jax",
                ),
                Baseline(
                    name="torch",
                    module="celia_torch",
                    arguments={
                        1: "--repeats 5 --linear dense",
                        64: "--repeats 3 --linear cyclic_reduction",
                        1024: "--repeats 1 --linear thomas",
                    },
                ),
            ),
        ),
        Case(
            name="celia-cuts",
            title="The same columns as one batch and as batches of 1,000, in turns",
            module="celia",
            function="cuts",
            repeats={"cpu": {10_000: 5, 100_000: 2}},
        ),
        Case(
            name="weather",
            title="A week of hourly weather with roots on 100 cells, adaptive steps",
            module="weather",
            repeats={"cpu": {64: 5, 1000: 3}, "cuda": {1000: 5, 50_000: 3}},
        ),
        Case(
            name="tracer",
            title="A front of tracer in steady water, one linear solute, 100 cells, 200 steps",
            module="tracer",
            repeats={"cpu": {64: 10, 1024: 5}},
            baselines=(
                Baseline(
                    name="torch",
                    module="tracer_torch",
                    arguments={64: "--repeats 3", 1024: "--repeats 2"},
                ),
            ),
        ),
        Case(
            name="slab",
            title="A day of rain on a heterogeneous slab (ParFlow, PFLOTRAN), 40 layers, hourly steps",
            module="slab",
            repeats={"cpu": {1024: 5, 16_384: 3}, "cuda": {16_384: 3}},
        ),
        Case(
            name="aquifer",
            title="Ten days of pumping from a heterogeneous confined aquifer (MODFLOW 6), 40 x 160 x 160 cells",
            module="aquifer",
            repeats={"cpu": {25_600: 3}},
        ),
        Case(
            name="hillside",
            title="Rain on a heterogeneous section (FiPy), 64 layers, hourly steps of a day",
            module="hillside",
            repeats={"cpu": {64: 5}},
        ),
        *(
            Case(
                name=f"plume-{name}",
                title=f"A plume in a heterogeneous aquifer (MODFLOW 6 GWT), 40 x 50 x 100 cells, {what}",
                module="plume",
                function=name,
                repeats={"cpu": {5000: 3}},
            )
            for name, what in (
                ("upwind", "upstream, 41 steps"),
                ("tvd", "TVD, 41 steps"),
                ("tensor", "upstream with the whole tensor, 9 steps"),
                ("tvd_tensor", "TVD with the whole tensor, 9 steps"),
            )
        ),
        Case(
            name="deck",
            title="Rain on a deep dry soil over a water table (a deck of ParFlow), 240 layers, ten hourly steps",
            module="deck",
            repeats={"cpu": {64: 3, 9216: 1}, "cuda": {9216: 3, 1_016_064: 1}},
        ),
        Case(
            name="two-soils",
            title="Water entering sand and loamy sand, 50 x 50 x 45 and 128^3 cells, ten steps, five parameter fields",
            module="two_soils",
            repeats={"cpu": {2500: 3, 16_384: 1}},
        ),
        Case(
            name="million",
            title="The same week on a million columns, float64; the gradient in parts that fit in memory",
            module="million",
            repeats={"cuda": {1_000_000: 3}},
        ),
        linear_case(
            "slab",
            "Linear system of steady flow in a slab of 128 x 128 x 40 cells, dx/dz = 40, to 1e-8",
            128 * 128,
            ("icc0", "smoothed-aggregation"),
        ),
        linear_case(
            "step",
            "Linear system of one time step in the same slab, to 1e-8",
            128 * 128,
            ("icc0", "ruge-stuben"),
        ),
        linear_case(
            "cube",
            "Linear system of steady flow in a cube of 96 x 96 x 96 cells, to 1e-8",
            96 * 96,
            ("icc0", "ruge-stuben", "smoothed-aggregation"),
        ),
    )
}
