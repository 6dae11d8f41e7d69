"""Build of the native module `dgpde._C`. Everything else about the package is in pyproject.toml.

The module is plain C++17 behind pybind11 and does not link libtorch, so one build serves every torch version.

- `csrc/bindings.cpp` and `csrc/cpu/*.cpp` are compiled once, for the machine's baseline.
- The engine's files (those that match `ENGINE`) are compiled once for each instruction set in `INSTRUCTION_SETS`,
  each into its own objects and, through `DGPDE_ISA`, its own namespace. `csrc/cpu/dispatch.cpp` chooses among
  them at run time, so a wheel built on one machine runs on any other of the same architecture.
- `csrc/cuda/*.cu` are compiled when nvcc is found and left out when it is not. If nvcc is there and the
  compilation fails, the install fails: a GPU build is never dropped in silence.

Objects are kept in `build/native-*` and rebuilt when their command, their source or a header that they
include has changed.

Environment: CXX (compiler), NVCC (CUDA compiler), DGPDE_CUDA (`0` leaves CUDA out, `1` insists on it),
DGPDE_JOBS (parallel compilations; default: the number of cores, at most 8).
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
ENGINE = (
    "column_*.cpp",
    "flow_*.cpp",
    "linear_*.cpp",
    "soil*.cpp",
    "transport_*.cpp",
)  # not *_bindings.cpp, which are ordinary

# Never -ffast-math, which would void the solver's NaN checks; never -march=native, which would tie a wheel to
# the machine that built it.
CXX_FLAGS = shlex.split(
    "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fopenmp -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi"
)
INSTRUCTION_SETS = {
    "generic": "",
    "avx2": "-mavx2 -mfma",
    "avx512": "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512",
}
NVCC_FLAGS = shlex.split(
    "-std=c++17 -O3 --expt-relaxed-constexpr --threads 0 -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra "
    "-gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_80,code=compute_80"
)  # machine code for Hopper; for every other GPU from sm_80 on PTX, which its driver compiles once and keeps


@dataclass(frozen=True)
class Compilation:
    """One object file and the command that makes it."""

    source: Path
    target: Path
    command: list[str]

    @property
    def dependencies(self) -> Path:
        """The make rule that the compiler writes: the source and every header it included."""
        return self.target.with_suffix(".d")

    @property
    def record(self) -> Path:
        """The command that made the object which is there now."""
        return self.target.with_suffix(".cmd")

    def is_current(self) -> bool:
        """Whether the object is there, made by this command, and newer than all that went into it."""
        if not (self.target.exists() and self.dependencies.exists() and self.record.exists()):
            return False
        if self.record.read_text() != shlex.join(self.command):
            return False
        rule = self.dependencies.read_text().replace("\\\n", " ")
        made = self.target.stat().st_mtime
        needed = [Path(name) for name in shlex.split(rule.split(":", 1)[1])]
        return all(path.exists() and path.stat().st_mtime <= made for path in needed)

    def run(self) -> None:
        """Compile unless the object is current; the compiler's messages go to the terminal."""
        if self.is_current():
            return
        self.record.unlink(missing_ok=True)
        sys.stdout.write(f"compiling {self.target.stem}\n")
        start = time.time()
        subprocess.run(self.command, check=True)
        # A file that was edited while it was being compiled must count as newer than the object.
        os.utime(self.target, (start, start))
        self.record.write_text(shlex.join(self.command))


def find_nvcc() -> str | None:
    """The CUDA compiler to use, or None; honours NVCC, CUDA_HOME, CUDA_PATH and DGPDE_CUDA."""
    wanted = os.environ.get("DGPDE_CUDA", "")
    if wanted == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = (
        os.environ.get("NVCC") or shutil.which("nvcc") or (home and shutil.which(f"{home}/bin/nvcc")) or None
    )
    if nvcc is None and wanted == "1":
        raise RuntimeError(
            "DGPDE_CUDA=1 asks for the CUDA build, but nvcc is not on the PATH; set NVCC or CUDA_HOME"
        )
    return nvcc


class BuildNative(build_ext):
    """Compile in parallel, several times for the engine files, and link with nvcc where CUDA is built."""

    def build_extension(self, ext: Extension) -> None:
        """Build `dgpde._C` where setuptools wants it."""
        if not (CSRC / "bindings.cpp").exists():
            raise FileNotFoundError("csrc/bindings.cpp is missing: the source tree is not complete")
        objects = ROOT / "build" / f"native-{sys.implementation.cache_tag}-{platform.machine()}"
        objects.mkdir(parents=True, exist_ok=True)
        cxx = shlex.split(os.environ.get("CXX", "c++"))
        cuda_sources = sorted((CSRC / "cuda").glob("*.cu"))
        nvcc = find_nvcc() if cuda_sources else None
        jobs = list(self.compilations(objects, cxx, nvcc, cuda_sources))
        workers = int(os.environ.get("DGPDE_JOBS", min(os.cpu_count() or 1, 8)))
        with (objects / "lock").open("w") as lock, ThreadPoolExecutor(workers) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds of one tree would spoil each other's objects
            list(pool.map(Compilation.run, jobs))  # list() waits for all and raises the first failure
            self.link(Path(self.get_ext_fullpath(ext.name)), [job.target for job in jobs], cxx, nvcc)

    def compilations(self, objects: Path, cxx: list[str], nvcc: str | None, cuda_sources: Sequence[Path]):
        """Yield every `Compilation` of this build; the slowest, the engine's, first."""
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        variants = INSTRUCTION_SETS if x86 else {"generic": INSTRUCTION_SETS["generic"]}
        include = [f"-I{CSRC}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
        # Not given to the engine's files: with and without CUDA they are the same objects.
        defines = ["-DDGPDE_CUDA"] if nvcc else []
        defines += [f"-DDGPDE_HAVE_{name.upper()}" for name in variants]

        def compilation(source: Path, suffix: str, compiler: list[str]) -> Compilation:
            target = objects / f"{source.parent.name}-{source.stem}{suffix}.o"
            depend = ["-MMD", "-MF", str(target.with_suffix(".d"))]
            command = [*compiler, *include, *depend, "-c", str(source), "-o", str(target)]
            return Compilation(source, target, command)

        matches = {path for pattern in ENGINE for path in (CSRC / "cpu").glob(pattern)}
        engine = sorted(path for path in matches if not path.stem.endswith("_bindings"))
        if nvcc:
            for source in cuda_sources:
                host = [f"-ccbin={cxx[0]}"]
                yield compilation(source, "-cuda", [nvcc, *NVCC_FLAGS, *host, *defines, "-DDGPDE_ISA=cuda"])
        for source in engine:
            for name, flags in reversed(variants.items()):
                yield compilation(
                    source, f"-{name}", [*cxx, *CXX_FLAGS, *shlex.split(flags), f"-DDGPDE_ISA={name}"]
                )
        for source in [CSRC / "bindings.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))]:
            if source not in engine:
                yield compilation(source, "", [*cxx, *CXX_FLAGS, *defines])

    def link(self, target: Path, objects: list[Path], cxx: list[str], nvcc: str | None) -> None:
        """Link the objects into the module unless it was made by this command after all of them."""
        target.parent.mkdir(parents=True, exist_ok=True)
        names = [str(path) for path in objects]
        if nvcc:
            command = [
                nvcc,
                f"-ccbin={cxx[0]}",
                "-shared",
                "-cudart=static",
                "-Xcompiler=-fPIC,-fopenmp",
                *names,
            ]
        else:
            command = [*cxx, "-shared", "-fopenmp", *names]
        if sys.platform == "darwin":
            command += ["-undefined", "dynamic_lookup"]
        new = target.with_name(f"{target.name}.new")
        command += ["-o", str(new)]
        record = objects[0].parent / "link.cmd"
        if (
            target.exists()
            and record.exists()
            and record.read_text() == shlex.join(command)
            and all(path.stat().st_mtime <= target.stat().st_mtime for path in objects)
        ):
            return
        record.unlink(missing_ok=True)
        print("linking", target.name, "with CUDA" if nvcc else "without CUDA", flush=True)
        subprocess.run(command, check=True)
        new.replace(target)  # a process that has the old module loaded keeps its own file
        record.write_text(shlex.join(command))


setup(ext_modules=[Extension("dgpde._C", sources=[])], cmdclass={"build_ext": BuildNative})
