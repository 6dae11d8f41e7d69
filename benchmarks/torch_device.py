"""Waiting for a device, and its memory: the part of measuring that needs torch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import measure


def synchronizer(device: str) -> Callable[[], None]:
    """What to call before a clock is read."""
    return torch.cuda.synchronize if device == "cuda" else measure.nothing


def peak_memory(device: str) -> float:
    """Largest memory so far [bytes]: of the process on the CPU, of torch's allocator on the GPU."""
    return float(torch.cuda.max_memory_allocated()) if device == "cuda" else measure.peak_memory()


def reset_peak_memory(device: str) -> float:
    """Forget the peak so far; returns what is in use [bytes]."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    return measure.reset_peak_memory()
