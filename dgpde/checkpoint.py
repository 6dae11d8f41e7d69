"""What a run keeps for its backward sweep, and what that takes.

The adjoint needs the state after every accepted step. ``Checkpoint("all")`` keeps them all. ``Checkpoint(every=k)``
keeps the state at every k-th output time only and computes the steps between two of them again when the backward
sweep comes to them: memory for k intervals plus the kept states, at the price of one more forward run.
``Checkpoint("binomial", states=s)`` keeps s states whatever the length of the run, and the steps of one interval: where
s states are few, intervals are run again several times, as seldom as can be (``dgpde.revolve``). Steps taken again are
the same to the last bit, so every policy gives the same gradient.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dgpde.kernels.column_flow.native import Segment
    from dgpde.kernels.column_flow.problem import ColumnProblem

PLACES = ("device", "host", "disk")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Policy for the backward sweep of a run.

    Args:
        policy: "all" (every accepted state is kept), "every" (needs ``every``; implied by it) or "binomial" (needs
            ``states``; implied by it; of sections and domains).
        every: k, the number of output intervals between two kept states.
        where: where the kept states lie: "device" (default), "host" (pinned memory, for runs on a GPU) or
            "disk" (an HDF5 file). "all" keeps its states on the device.
        directory: folder of the file for where="disk"; default a temporary one. The file goes when the graph of
            the run does.
        states: s, the number of states that "binomial" keeps, that at the start among them, at least 1.

    Raises:
        TypeError, ValueError: the message starts with the name of the argument.
    """

    policy: str = "all"
    every: int | None = None
    where: str = "device"
    directory: str | Path | None = None
    states: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.policy == "all":
            object.__setattr__(self, "policy", "every")
        if self.states is not None and self.policy == "all":
            object.__setattr__(self, "policy", "binomial")
        if self.policy not in ("all", "every", "binomial"):
            raise ValueError(f"policy must be 'all', 'every' or 'binomial', it is {self.policy!r}")
        if (self.states is not None) != (self.policy == "binomial") or (
            self.every is not None and self.policy != "every"
        ):
            raise ValueError(
                f"policy {self.policy!r} does not go with every={self.every!r} and states={self.states!r}; give every "
                "or states alone"
            )
        if self.policy == "binomial":
            if isinstance(self.states, bool) or not isinstance(self.states, int):
                raise TypeError(f"states must be an integer number of states, it is {self.states!r}")
            if self.states < 1:
                raise ValueError(f"states must be at least 1, it is {self.states}")
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

    def drop(self, index: int) -> None:
        """Forget a state."""
        self.kept.remove(index)
        if self.where != "disk":
            del self.states[index]
            return
        import h5py

        with h5py.File(self._file, "a") as file:
            del file[str(index)]

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
        steps: accepted steps of a column or a field; exact with dt_fixed, else after what was probed.
        outputs: results of the forward run, and the state that it carries along.
        work: scratch memory of the kernels; of fields also what is made of the inputs for them.
        history: accepted states kept on the device for the backward sweep.
        checkpoints: states kept at the policy's places.
        gradients: gradients of all inputs, at most (of a field's that require one, if any does), and what their
            sweep works in beyond ``work``.
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
        return f"{self.steps} steps\n" + "\n".join(f"{name:22s}{size / 1e6:12.1f} MB" for name, size in rows)


def probed_steps(
    problem: ColumnProblem, inputs: dict[str, Tensor], cuts: Sequence[Segment], groups: int, lanes: int
) -> Tensor:
    """Accepted steps [cuts, groups, lanes] of groups of neighbouring columns spread over the batch.

    Neighbours, because columns that are solved together share the rows of their history. The run keeps no history.
    """
    from dgpde.kernels.column_flow.function import column_flow
    from dgpde.kernels.column_flow.native import segment_inputs, segment_problem
    from dgpde.kernels.soil_relation.reference import is_shared

    last = -(-problem.n // lanes) - 1
    groups = min(groups, last + 1)
    chosen = torch.linspace(0, last, groups).round().long()[:, None] * lanes + torch.arange(lanes)
    # lanes beyond the last column hold nothing: they repeat it
    columns = chosen.clamp(max=problem.n - 1).flatten().to(inputs["psi0"].device)
    state = {
        name: (value if is_shared(name) else value.index_select(-1, columns)).detach()
        for name, value in inputs.items()
    }
    part = replace(
        problem,
        n=columns.numel(),
        save=(problem.intervals,),
        options=replace(problem.options, checkpoint=None, record_steps=False),
        classes=None if problem.classes is None else problem.classes.index_select(-1, columns),
    )
    counts = []
    for cut in cuts:
        span = replace(segment_problem(part, cut), save=(cut.last - cut.first,))
        run = column_flow(span, segment_inputs(state, cut, part), problem.options.backend)
        state |= {"psi0": run.psi[-1], "ponding0": run.ponding[-1], "dt0": run.report.dt_next}
        counts.append(run.report.steps.cpu().view(groups, lanes))
    return torch.stack(counts)


def plan_columns(problem: ColumnProblem, inputs: dict[str, Tensor], probe: int) -> Plan:
    """The plan of a column-flow run; ``probe`` as in ``Richards.plan``."""
    from dgpde.kernels.column_flow.function import choose_backend, segments
    from dgpde.kernels.column_flow.native import is_series, least_steps

    options = problem.options
    size = inputs["psi0"].element_size()
    n, nz, t = problem.n, problem.nz, problem.intervals
    cuts = segments(problem)
    # psi where it is saved, and at both ends of one of several segments; ponding, fluxes, runoff, uptake; the report,
    # and the same counters of the segment in hand
    handed_on = 2 if len(cuts) > 1 else 0
    outputs = size * n * ((len(problem.save) + handed_on) * nz + (t + 1) + 4 * t) + 2 * n * (9 * 8 + 4)
    if problem.top == "atmosphere":
        outputs += 3 * size * n * t  # evaporation, and what it is computed from
    backend = choose_backend(inputs["psi0"], options.backend)
    if backend is None:  # the reference keeps autograd's own graph, which is not planned
        raise ValueError("backend: 'reference' leaves its memory to autograd; plan a native backend")
    memory: Any = backend.module.column_memory(n, nz, size, backend.name == "cuda", torch.get_num_threads())
    if options.dt_fixed is None:
        steps = probed_steps(problem, inputs, cuts, -(-probe // memory["lanes"]), memory["lanes"])
    else:
        least = least_steps(problem)
        steps = torch.stack([least[cut.first : cut.last].sum() for cut in cuts])[:, None, None]
    block = memory["rows_per_block"]
    rows = (
        torch.ceil((steps.amax(dim=2) + 1) / block) * block
    )  # of each group, which are those of its longest run
    history = int(rows.mean(dim=1).max() * memory["history_row"])
    kept = 0 if len(cuts) == 1 else len(cuts) * (size * n * (nz + 1) + 12 * n)
    gradients = sum(
        size * (value.numel() if not is_series(name) or value.stride(0) != 0 else value[0].numel())
        for name, value in inputs.items()
        if value.is_floating_point()
    )
    if len(cuts) > 1:  # what one segment of the adjoint hands to the next
        gradients += size * n * (nz * (5 + 8) + 1)
    if "soil.table" in inputs:
        table = inputs["soil.table"]
        gradients += size * table.numel() * 2 * backend.table_chunks(table)
    if "soil.weights" in inputs:
        gradients += size * inputs["soil.weights"].numel() * n
    gradients += max(0, memory["replay_work"] - memory["work"])
    total = math.ceil(steps.sum(dim=0).double().mean())
    return Plan(total, outputs, memory["work"], history, kept, gradients)
