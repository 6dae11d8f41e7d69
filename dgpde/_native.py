"""The native module, loaded on first use; importing dgpde builds nothing and needs no compiler."""

from __future__ import annotations

from functools import cache
from types import ModuleType


@cache
def native_module() -> ModuleType:
    """`dgpde._C`.

    Raises:
        ImportError: the module is missing or does not load; the message holds the loader's own reason.
    """
    try:
        from dgpde import _C
    except ImportError as reason:
        raise ImportError(
            "dgpde._C: the native module does not load "
            f"({reason}); build it with `make build` or `pip install .`, "
            "or ask for the slow backend by SolveOptions(backend='reference')"
        ) from reason
    return _C
