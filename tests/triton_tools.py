"""Triton kernels where there is no GPU: in the interpreter, or compiled for one without being run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from dgpde.triton_launch import BLOCK

HERE = Path(__file__).parent
POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


def run_in_the_interpreter(file: str, chosen: str) -> None:
    """Run a file of tests in a process of its own: the interpreter is chosen when triton is imported."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen]
    done = subprocess.run(
        [*command, str(HERE / file)],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def signature(value: Any) -> Any:
    """The type of an argument as the compiler wants it."""
    if isinstance(value, tuple):
        return tuple(signature(part) for part in value)
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    return "constexpr" if value == 1 else "i32"  # as a launch would have it


def compile_for_gpu(kernel: Any, cells: int, **arguments: Any) -> None:
    """In place of a launch: the same call, compiled to machine code for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = arguments | {"cells": cells, "BLOCK": BLOCK}
    types = {p.name: "constexpr" if p.is_constexpr else signature(given[p.name]) for p in kernel.params}
    source = ASTSource(
        kernel, types, {name: given[name] for name, kind in types.items() if kind == "constexpr"}
    )
    found = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    assert len(found.asm["cubin"]) > 1000
    ptx = found.asm["ptx"]
    assert ".atom." not in ptx and "red.global" not in ptx
    for name, value in given.items():  # results that are read on as places in memory, or as numbers
        if isinstance(value, torch.Tensor) and (
            name in ("sums", "matrix") or (value.dtype == torch.int64 and value.numel() == cells)
        ):
            value.zero_()
