"""Launch of a Triton kernel over the cells of a field."""

from __future__ import annotations

from typing import Any

import torch
import triton

#: Cells of one program.
BLOCK = 256


def programs(cells: int) -> int:
    """Number of programs over that many cells."""
    return triton.cdiv(cells, BLOCK)


def launch(kernel: Any, cells: int, **arguments: Any) -> None:
    """Run a kernel on all cells, on the device of its psi.

    Multiplications and additions are not fused into one rounding, so that what two cells compute of the face between
    them has the same bits.
    """
    with torch.cuda.device_of(arguments["psi"]):
        kernel[(programs(cells),)](**arguments, cells=cells, BLOCK=BLOCK, enable_fp_fusion=False)
