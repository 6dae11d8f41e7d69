"""Errors of predictions and of the baselines that they must beat, as a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor


def rmse(predicted: Tensor, observed: Tensor) -> float:
    """Root mean square difference over the readings that exist (observed is not NaN); NaN if there are none."""
    difference = (predicted - observed)[~torch.isnan(observed)]
    return difference.square().mean().sqrt().item() if difference.numel() else float("nan")


def nan_mean(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean over `dims`, kept with size one, of the entries that are not NaN."""
    return torch.nanmean(values, dim=dims, keepdim=True)


@dataclass
class ErrorTable:
    """Root mean square errors: one row a method, one column a set of readings."""

    columns: list[str]
    rows: dict[str, list[float]] = field(default_factory=dict)

    def add(self, method: str, errors: list[float]) -> None:
        """Append one row; NaN stands for `not applicable`."""
        if len(errors) != len(self.columns):
            raise ValueError(f"errors has {len(errors)} numbers for {len(self.columns)} columns")
        self.rows[method] = errors

    def text(self) -> str:
        """The table for a terminal."""
        first = max(len("method"), *(len(name) for name in self.rows))
        widths = [max(len(name), 7) for name in self.columns]
        lines = [
            "  ".join(
                [f"{'method':<{first}}", *(f"{n:>{w}}" for n, w in zip(self.columns, widths, strict=True))]
            )
        ]
        lines.append("-" * len(lines[0]))
        for method, errors in self.rows.items():
            cells = [f"{'-':>{w}}" if e != e else f"{e:>{w}.4f}" for e, w in zip(errors, widths, strict=True)]
            lines.append("  ".join([f"{method:<{first}}", *cells]))
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write the table as CSV; a cell that is not applicable is empty."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["method", *self.columns])
            for method, errors in self.rows.items():
                writer.writerow([method, *("" if e != e else f"{e:.6f}" for e in errors)])
