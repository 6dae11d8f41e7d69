"""The native module, loaded on first use; importing dgpde builds nothing and needs no compiler."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType


@cache
def native_module() -> ModuleType:
    """`dgpde._C`.

    Raises:
        ImportError: the module is missing or does not load; the message holds the loader's own reason.
    """
    try:
        return importlib.import_module("dgpde._C")
    except ImportError as reason:
        raise ImportError(
            "dgpde._C: the native module does not load "
            f"({reason}); build it with `make build` or `pip install .`, "
            "or ask for the slow backend by SolveOptions(backend='reference')"
        ) from reason


def cuda_missing(module: ModuleType) -> str | None:
    """Why the CUDA kernels of a native module cannot run here, or None when they can."""
    import torch

    if not getattr(module, "cuda", False):
        return "dgpde was built without CUDA, since nvcc was not found or DGPDE_CUDA was 0"
    if torch.version.cuda is None:
        return "dgpde was built with CUDA, but this torch was not"
    if not torch.cuda.is_available():
        return "dgpde was built with CUDA, but torch finds no device"
    return None
