"""The command line: `dgpde info`, `dgpde demo`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

import torch

import dgpde
from dgpde._native import cuda_missing, native_module


def info() -> list[str]:
    """Lines that say what is installed, which backends can run here, and why the others cannot."""
    lines = [
        f"dgpde    {dgpde.__version__}",
        f"python   {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"torch    {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores",
    ]
    lines += [f"{name:<8} {_version(name)}" for name in ("numpy", "h5py", "xarray", "matplotlib")]
    lines += ["", "backends of column flow"]
    lines += [f"  {name:<10} {state}" for name, state in backends().items()]
    lines += ["", "backends of field flow (sections, domains)"]
    lines += [f"  {name:<10} {state}" for name, state in field_backends().items()]
    return lines


def backends() -> dict[str, str]:
    """Each backend with "available" or the reason why it cannot run here."""
    return {"cpu": _cpu(), "cuda": _cuda(), "reference": "available: plain PyTorch, for tests and checks"}


def field_backends() -> dict[str, str]:
    """The same for sections and domains."""
    return {"cpu": _cpu(), "triton": _triton(), "reference": "available: plain PyTorch, for tests and checks"}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        module = native_module()
    except ImportError as reason:
        return f"not available: {reason}"
    return f"available: C++, instruction set {module.instruction_set()}"


def _cuda() -> str:
    try:
        module = native_module()
    except ImportError as reason:
        return f"not available: {reason}"
    missing = cuda_missing(module)
    return f"available: {torch.cuda.get_device_name()}" if missing is None else f"not available: {missing}"


def _triton() -> str:
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "not available: the package triton is not installed"
    if not torch.cuda.is_available():
        return f"not available: triton {version} is installed, but torch finds no CUDA device"
    return f"available: triton {version} on {torch.cuda.get_device_name()}; linear systems on the host"


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    from dgpde.demos import SITES

    top = argparse.ArgumentParser(
        prog="dgpde", description="Differentiable variably saturated flow for PyTorch."
    )
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="versions, backends that can run here, and why the others cannot")
    demo = commands.add_parser("demo", help="fit soils to measured moisture and predict what was withheld")
    demo.add_argument("--site", choices=SITES, default=SITES[0], help=f"default {SITES[0]}")
    demo.add_argument("--output", help="folder of the results; default out/demo-<site>")
    demo.add_argument(
        "--iterations",
        type=_count,
        help="optimiser steps, 0 for the prior only; default: the demonstration's own",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    Args:
        arguments: those of the command line without the program's name; default `sys.argv[1:]`.
    """
    options = parser().parse_args(arguments)
    if options.command == "info":
        print("\n".join(info()))
        return 0
    # The figures need matplotlib, which the package itself does not.
    if importlib.util.find_spec("matplotlib") is None:
        print("dgpde demo: matplotlib is not installed; run: pip install 'dgpde[demo]'", file=sys.stderr)
        return 1
    from dgpde.demos import run_demo

    print(f"results in {run_demo(options.site, options.output, options.iterations)}")
    return 0
