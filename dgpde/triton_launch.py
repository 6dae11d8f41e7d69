"""Launch of a Triton kernel over the cells of a field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

#: Lanes of one program: cells, faces or columns.
BLOCK = 256


def why_not(device: torch.device) -> str:
    """Why Triton kernels cannot run on tensors of a device; "" where they can."""
    if device.type == "cuda" or triton.knobs.runtime.interpret:
        return ""
    return (
        "Triton kernels run on GPUs, and on the CPU only in its interpreter (TRITON_INTERPRET=1, for tests)"
    )


def programs(lanes: int) -> int:
    """Number of programs over that many lanes."""
    return triton.cdiv(lanes, BLOCK)


def launch(kernel: Any, cells: int, **arguments: Any) -> None:
    """Run a kernel with one lane for each of the cells, on the device of its first tensor.

    Multiplications and additions are not fused into one rounding, so that what two cells compute of the face between
    them has the same bits.
    """
    with torch.cuda.device_of(next(_tensors(arguments))):
        kernel[(programs(cells),)](**arguments, cells=cells, BLOCK=BLOCK, enable_fp_fusion=False)


def _tensors(arguments: dict[str, Any]) -> Iterator[Tensor]:
    for value in arguments.values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Tensor):
                yield part
