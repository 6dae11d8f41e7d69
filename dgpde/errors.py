"""The one exception that a run raises when its numerics, not its arguments, are at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dgpde.solution import Solution


class SolveError(RuntimeError):
    """A solve, forward or backward, that could not be finished.

    Attributes:
        columns: [m] int64, indices of the columns that failed, in increasing order.
        times: [m] float64 s, the time that each of them had reached.
        status: [m] int32, the reason of each (a key of ``STATUS_TEXT``).
        solution: the whole run, in which the other columns are finished and sound; None when the failure came
            up in the backward sweep or in a run that is streamed to a file.
    """

    def __init__(
        self,
        message: str,
        *,
        columns: Tensor | None = None,
        times: Tensor | None = None,
        status: Tensor | None = None,
        solution: Solution | None = None,
    ) -> None:
        super().__init__(message)
        self.columns = torch.zeros(0, dtype=torch.int64) if columns is None else columns
        self.times = torch.zeros(0, dtype=torch.float64) if times is None else times
        self.status = torch.zeros(0, dtype=torch.int32) if status is None else status
        self.solution = solution


def failure(
    status: Tensor, failed_time: Tensor, reasons: dict[int, str], solution: Solution | None = None
) -> SolveError:
    """The SolveError for the columns of a run whose status is not 0.

    Args:
        status: [n] int32, 0 where a column finished.
        failed_time: [n] float64 s.
        reasons: what happened and what to change, for each status.
        solution: the run, for whoever catches the error and wants the columns that finished.
    """
    status, failed_time = status.cpu(), failed_time.cpu()
    columns = torch.nonzero(status).flatten()
    lines = [f"{columns.numel()} of {status.numel()} columns could not go on; the others finished."]
    for code in torch.unique(status[columns]).tolist():
        members = columns[status[columns] == code]
        shown = ", ".join(f"{k} (t = {failed_time[k].item():.6g} s)" for k in members[:8].tolist())
        more = f" and {members.numel() - 8} more" if members.numel() > 8 else ""
        lines.append(f"Columns {shown}{more}: {reasons.get(code, f'unknown status {code}')}.")
    lines.append(
        "Pass options=SolveOptions(on_failure='return') to receive the run with a status per column instead."
    )
    return SolveError(
        "\n".join(lines),
        columns=columns,
        times=failed_time[columns],
        status=status[columns],
        solution=solution,
    )
