"""Processor time, peak memory, machine and versions. No torch and no jax here: the baselines import it too.

Times are processor seconds (user + system, all threads) of the measuring process. On a machine that is shared
with other work they are steadier than wall time, and the least of several repeats is steadier than the median.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Timing:
    """Repeats of one measurement, in seconds."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def __add__(self, other: Timing) -> Timing:
        """The times of two things done one after the other in each repeat."""
        return Timing(
            [a + b for a, b in zip(self.cpu, other.cpu, strict=True)],
            [a + b for a, b in zip(self.wall, other.wall, strict=True)],
        )

    def summary(self) -> dict[str, float | int]:
        """Least and median of the processor time, its spread (largest - least) / median, and the median wall time."""
        median = statistics.median(self.cpu)
        return {
            "cpu_least": min(self.cpu),
            "cpu_median": median,
            "cpu_spread": (max(self.cpu) - min(self.cpu)) / median if median > 0 else 0.0,
            "wall_median": statistics.median(self.wall),
            "wall_least": min(self.wall),
            "repeats": len(self.cpu),
        }


def nothing() -> None:
    """Default of `synchronize`: the CPU has nothing to wait for."""


def timed(action: Callable[[], Any], into: Timing, synchronize: Callable[[], None] = nothing) -> Any:
    """Run `action` once, add its time to `into`, return what it returned."""
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    synchronize()
    into.cpu.append(time.process_time() - cpu)
    into.wall.append(time.perf_counter() - wall)
    return result


def peak_memory() -> float:
    """Largest resident size of this process [bytes] since its start, or since `reset_peak_memory`."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def reset_peak_memory() -> float:
    """Give freed memory back and forget the peak so far, where the system allows it (Linux with glibc).

    Returns the peak from which to count [bytes].
    """
    # A C library without malloc_trim, a system without clear_refs: the peak then counts from the process's start.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def _status(name: str) -> float:
    """An entry of /proc/self/status [bytes]; 0 where there is none."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1]) * 1024.0
    return 0.0


def one_core() -> None:
    """Bind this process, and every thread that it starts later, to one core. Call before importing torch or jax."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the tree, with "+" when the tree differs from it; empty outside a repository."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=10"], cwd=ROOT, capture_output=True, text=True
    )
    return run.stdout.strip()


def surroundings(packages: tuple[str, ...] = ("dgpde", "torch", "numpy")) -> dict[str, Any]:
    """What a result depends on besides the code that was timed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "from the tree"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


@dataclass
class Measurement:
    """One code on one problem size. Times are None when there is nothing to time (no gradient, say)."""

    forward: dict[str, float | int]
    backward: dict[str, float | int] | None
    gradient: (
        dict[str, float | int] | None
    )  # forward with what the backward sweep needs, and the backward sweep
    peak_memory: dict[str, float]  # bytes: "start", "forward", "backward"; of dgpde also "planned ..."
    cell_steps: float  # cells x accepted time steps of one forward run, summed over the columns
    newton_iterations: float  # a column and a step, mean
    checks: dict[str, float]
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return asdict(self)
