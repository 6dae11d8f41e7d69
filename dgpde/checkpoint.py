"""What a run keeps for its backward sweep, and what that takes.

The adjoint needs the state after every accepted step. ``Checkpoint("all")`` keeps them all. ``Checkpoint(every=k)``
keeps the state at every k-th output time only and computes the steps between two of them again when the backward
sweep comes to them: memory for k intervals plus the kept states, at the price of one more forward run. Steps taken
again are the same to the last bit, so every policy gives the same gradient.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dgpde.kernels.column_flow.problem import ColumnProblem

PLACES = ("device", "host", "disk")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Policy for the backward sweep of a run.

    Args:
        policy: "all" (every accepted state is kept) or "every" (needs ``every``; implied by it).
        every: k, the number of output intervals between two kept states.
        where: where the kept states lie: "device" (default), "host" (pinned memory, for runs on a GPU) or
            "disk" (an HDF5 file). "all" keeps its states on the device.
        directory: folder of the file for where="disk"; default a temporary one. The file goes when the graph of
            the run does.

    Raises:
        TypeError, ValueError: the message starts with the name of the argument.
    """

    policy: str = "all"
    every: int | None = None
    where: str = "device"
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.policy == "all":
            object.__setattr__(self, "policy", "every")
        if self.policy not in ("all", "every"):
            raise ValueError(f"policy must be 'all' or 'every', it is {self.policy!r}")
        if self.policy == "every":
            if isinstance(self.every, bool) or not isinstance(self.every, int):
                raise TypeError(f"every must be an integer number of intervals, it is {self.every!r}")
            if self.every < 1:
                raise ValueError(f"every must be at least 1, it is {self.every}")
        if self.where not in PLACES:
            raise ValueError(f"where must be one of {', '.join(PLACES)}, it is {self.where!r}")
        if self.policy == "all" and self.where != "device":
            raise ValueError(
                f"where={self.where!r} goes with every=k: states of all steps stay on the device; "
                "give every=1 to move as much as possible"
            )
        if self.directory is not None and self.where != "disk":
            raise ValueError("directory is only used with where='disk'")


class StateStore:
    """Keeps named states (a few tensors each) where the policy says, and gives them back unchanged."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.where = checkpoint.where
        self.states: dict[int, State] = {}
        self.kept: set[int] = set()
        self.devices: dict[str, torch.device] = {}
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        if self.where == "disk":
            if checkpoint.directory is not None:
                Path(checkpoint.directory).mkdir(parents=True, exist_ok=True)
            self.folder = tempfile.TemporaryDirectory(prefix="dgpde-", dir=checkpoint.directory)

    @property
    def _file(self) -> Path:
        assert self.folder is not None
        return Path(self.folder.name) / "states.h5"

    def put(self, index: int, state: State) -> None:
        """Keep a state under a number."""
        self.kept.add(index)
        self.devices = {name: value.device for name, value in state.items()}
        if self.where == "device":
            self.states[index] = {name: value.clone() for name, value in state.items()}
        elif self.where == "host":
            self.states[index] = {name: _to_host(value) for name, value in state.items()}
        else:
            import h5py

            with h5py.File(self._file, "a") as file:
                group = file.create_group(str(index))
                for name, value in state.items():
                    group[name] = value.detach().cpu().numpy()

    def get(self, index: int) -> State:
        """The state of that number, on the device it came from."""
        if self.where == "disk":
            import h5py

            with h5py.File(self._file, "r") as file:
                group = file[str(index)]
                return {
                    name: torch.from_numpy(group[name][()]).to(device)
                    for name, device in self.devices.items()
                }
        return {name: value.to(self.devices[name]) for name, value in self.states[index].items()}


def _to_host(value: Tensor) -> Tensor:
    """A copy in main memory, pinned when it comes from a GPU so that it can be fetched while kernels run."""
    if value.device.type != "cuda":
        return value.clone()
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    host.copy_(value)
    return host


@dataclass(frozen=True)
class Plan:
    """Bytes that a run takes, before it is run.

    Attributes:
        steps: accepted steps of a column that the plan counts on; exact with dt_fixed, else one step for every
            interval, or as many as dt_max asks for: an adaptive run may take more.
        outputs: results of the forward run.
        work: scratch memory of the kernels.
        history: accepted states kept on the device for the backward sweep.
        checkpoints: states kept at the policy's places.
        gradients: gradients of all inputs, at most, and what their sweep works in beyond ``work``.
    """

    steps: int
    outputs: int
    work: int
    history: int
    checkpoints: int
    gradients: int

    @property
    def forward(self) -> int:
        """Bytes of a run without gradient."""
        return self.outputs + self.work

    @property
    def backward(self) -> int:
        """Bytes at the height of a run with gradient."""
        return self.forward + self.history + self.checkpoints + self.gradients

    def __str__(self) -> str:
        rows = (
            ("outputs", self.outputs),
            ("work", self.work),
            ("forward", self.forward),
            ("history", self.history),
            ("checkpoints", self.checkpoints),
            ("gradients", self.gradients),
            ("forward and gradient", self.backward),
        )
        return f"{self.steps} steps a column\n" + "\n".join(
            f"{name:22s}{size / 1e6:12.1f} MB" for name, size in rows
        )


def plan_columns(problem: ColumnProblem, inputs: dict[str, Tensor]) -> Plan:
    """The plan of a column-flow run."""
    from dgpde.kernels.column_flow.function import choose_backend, segments
    from dgpde.kernels.column_flow.native import is_series, least_steps

    options = problem.options
    size = inputs["psi0"].element_size()
    n, nz, t = problem.n, problem.nz, problem.intervals
    steps = least_steps(problem)
    total = int(steps.sum())
    outputs = size * n * (len(problem.save) * nz + (t + 1) + 4 * t) + n * (9 * 8 + 4)
    backend = choose_backend(inputs["psi0"], options.backend)
    if backend is None:  # the reference keeps autograd's own graph, which is not planned
        raise ValueError("backend: 'reference' leaves its memory to autograd; plan a native backend")
    cuts = segments(problem)
    pieces = [int(steps[cut.first : cut.last].sum()) for cut in cuts]
    memory: Any = backend.module.column_memory(n, nz, size, backend.name == "cuda", torch.get_num_threads())
    rows = max(pieces) + 1
    block = memory["rows_per_block"]
    history = -(-rows // block) * block * memory["history_row"]
    kept = 0 if len(cuts) == 1 else len(cuts) * (size * n * (nz + 1) + 12 * n)
    gradients = sum(
        size * (value.numel() if not is_series(name) or value.stride(0) != 0 else value[0].numel())
        for name, value in inputs.items()
        if value.is_floating_point()
    )
    gradients += size * n * (nz * (5 + 8) + 1)
    if "soil.table" in inputs:
        table = inputs["soil.table"]
        gradients += size * table.numel() * 2 * backend.table_chunks(table)
    gradients += max(0, memory["replay_work"] - memory["work"])
    return Plan(total, outputs, memory["work"], history, kept, gradients)
