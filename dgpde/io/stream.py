"""A run that is written to disk as it is computed, and can be resumed after a kill.

An HDF5 file that is being written when its process is killed may be lost. So each block of intervals becomes
a file of its own, in the folder ``<path>.parts``, under a temporary name until it is whole. The last block
holds
the state from which the run goes on: psi, ponding and the next step of each column. When all are there they
are copied, one at a time, into the one file that was asked for, and the folder is removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch
from torch import Tensor

from dgpde.assembly import Setup, compact_view, kept_in, set_up
from dgpde.boundary import Atmosphere
from dgpde.errors import failure
from dgpde.frame import is_number
from dgpde.io import hdf5
from dgpde.kernels.column_flow.problem import STATUS_TEXT, ColumnResult, Report
from dgpde.options import SolveOptions
from dgpde.solution import actual_evaporation, joined_report, masked_after_failure, show_progress

if TYPE_CHECKING:
    from dgpde.richards import Block, Richards

BLOCK_BYTES = 256 << 20
FEWEST_BLOCKS = 20  # so that a kill loses little of a run that would fit in one block
HEADER = "run.h5"


def start(flow: Richards, path: str | Path, setup: Setup, block: int | None, progress: bool) -> Path:
    """Begin a run; see ``Richards.stream``."""
    target = Path(path)
    parts = _parts(target)
    for existing in (target, parts):
        if existing.exists():
            raise FileExistsError(
                f"path {existing} exists; choose another name, remove it, or go on with Richards.resume"
            )
    if setup.problem.options.record_steps:
        raise ValueError(
            "options.record_steps cannot be kept by a run that is streamed; use solve and to_hdf5"
        )
    if block is None:
        block = default_block(setup)
    elif isinstance(block, bool) or not isinstance(block, int):
        raise TypeError(f"block must be an integer, not {type(block).__name__}")
    elif block < 1:
        raise ValueError(f"block must be at least 1 interval, it is {block}")
    _check_no_gradient(setup)
    parts.mkdir(parents=True)
    temporary = parts / (HEADER + ".tmp")
    with h5py.File(temporary, "w") as file:
        hdf5.put_header(file, flow.grid, setup.problem.times, setup.problem.save)
        file.attrs["block"] = block
        file.attrs["options"] = json.dumps(_plain(setup.problem.options))
        file.attrs["fingerprint"] = fingerprint(setup)
        file["psi0"] = compact_view(setup.psi0).detach().cpu().numpy()
        file["ponding0"] = compact_view(setup.ponding0).detach().cpu().numpy()
    hdf5.publish(temporary, parts / HEADER)
    return _run(flow, target, setup, block, 0, None, progress)


def resume(flow: Richards, path: str | Path, options: SolveOptions | None, progress: bool) -> Path:
    """Go on with a run; see ``Richards.resume``."""
    target = Path(path)
    header = _parts(target) / HEADER
    if target.exists():
        # A kill between publishing the file and removing its blocks leaves only rubbish behind.
        shutil.rmtree(_parts(target), ignore_errors=True)
        return target
    if not header.exists():
        raise FileNotFoundError(f"path {target} is no run that was begun with Richards.stream")
    with h5py.File(header, "r") as file:
        block, known = int(file.attrs["block"]), str(file.attrs["fingerprint"])
        begun_with = SolveOptions(**json.loads(file.attrs["options"]))
        device = _device(flow)
        psi0 = torch.from_numpy(file["psi0"][...]).to(device)
        ponding0 = torch.from_numpy(file["ponding0"][...]).to(device)
        times, save = torch.from_numpy(file["time"][...]), [int(index) for index in file["saved"]]
    setup = set_up(flow.words, psi0, times, options or begun_with, save, ponding0)
    _check_no_gradient(setup)
    if fingerprint(setup) != known:
        raise ValueError(
            f"path {target} was begun with another model: grid, soil, boundaries, sources and their series must be "
            "the same for a run to go on"
        )
    done = _finished(target)
    if done == 0:
        return _run(flow, target, setup, block, 0, None, progress)
    with h5py.File(_block_path(target, done - 1), "r") as file:
        state = {
            name: torch.from_numpy(file["state"][name][...]).to(device)
            for name in ("psi", "ponding", "dt_next")
        }
    setup = replace(setup, psi0=state["psi"], ponding0=state["ponding"])
    return _run(flow, target, setup, block, done, state["dt_next"], progress)


@torch.no_grad()
def _run(
    flow: Richards, target: Path, setup: Setup, block: int, done: int, dt0: Tensor | None, progress: bool
) -> Path:
    """Compute and write the blocks that are missing, then join them."""
    problem = setup.problem
    report = _report_so_far(target, done)
    for part in flow.blocks(setup, block, done * block, dt0):
        new = _on_cpu(part.result.report)
        report = new if report is None else joined_report([report, new])
        if problem.options.on_failure == "raise" and bool((new.status != 0).any()):
            raise failure(new.status, new.failed_time, STATUS_TEXT)
        _write_block(flow, target, setup, part, part.first // block, report)
        if progress:
            show_progress(part.last, problem.intervals)
    _join(flow, target, setup, block)
    return target


def _write_block(
    flow: Richards, target: Path, setup: Setup, part: Block, number: int, report: Report
) -> None:
    """One block as a file: its part of the trajectory, its report, and the state at its end."""
    times = setup.problem.times[part.first : part.last + 1]
    kept = kept_in(setup.problem.save, part.first, part.last)
    state = {"psi": part.psi_end, "ponding": part.result.ponding[-1], "dt_next": part.result.report.dt_next}
    result = masked_after_failure(replace(part.result, report=report), times, kept)
    values = _values(flow, setup, part, result, times)
    path = _block_path(target, number)
    temporary = path.with_name(path.name + ".tmp")
    with h5py.File(temporary, "w") as file:
        for name, value in values.items():
            hdf5.put(file, name, hdf5.TRAJECTORY[name], value)
        hdf5.put_report(file, part.result.report)
        group = file.create_group("state")
        for name, value in state.items():
            group[name] = value.detach().cpu().numpy()
    hdf5.publish(temporary, path)


def _values(
    flow: Richards, setup: Setup, part: Block, result: ColumnResult, times: Tensor
) -> dict[str, Tensor]:
    """The datasets of a block; its first ponding is the last of the block before, so only block 0 has it."""
    values = {"psi": result.psi, "theta": flow.soil.theta(result.psi)}
    values["ponding"] = result.ponding if part.first == 0 else result.ponding[1:]
    values |= {name: getattr(result, name) for name in ("top_flux", "bottom_flux", "runoff", "uptake")}
    if isinstance(flow.words.top, Atmosphere):
        frame = replace(setup.frame, first=part.first, last=part.last)
        rain = flow.words.top.inputs(frame, "top")["precipitation"]
        values["evaporation"] = actual_evaporation(result, rain, times)
    return values


def _join(flow: Richards, target: Path, setup: Setup, block: int) -> None:
    """Copy the blocks into the file that was asked for, and remove them."""
    problem = setup.problem
    count = -(-problem.intervals // block)
    lengths = {"saved_time": len(problem.save), "time": problem.intervals + 1, "interval": problem.intervals}
    temporary = target.with_name(target.name + ".tmp")
    with h5py.File(temporary, "w") as file:
        hdf5.put_header(file, flow.grid, problem.times, problem.save)
        row = dict.fromkeys(hdf5.TRAJECTORY, 0)
        for number in range(count):
            with h5py.File(_block_path(target, number), "r") as part:
                for name, quantity in hdf5.TRAJECTORY.items():
                    if name not in part:
                        continue
                    data = part[name]
                    if name not in file:
                        hdf5.create(
                            file, name, quantity, (lengths[quantity.dims[0]], *data.shape[1:]), data.dtype
                        )
                    file[name][row[name] : row[name] + data.shape[0]] = data[...]
                    row[name] += data.shape[0]
        report = _report_so_far(target, count)
        assert report is not None
        hdf5.put_report(file, report)
    hdf5.publish(temporary, target)
    shutil.rmtree(_parts(target))


def default_block(setup: Setup) -> int:
    """Intervals whose results and forcing take at most BLOCK_BYTES, and no more than a part of the run."""
    problem, itemsize = setup.problem, torch.finfo(setup.frame.dtype).bits // 8
    share = len(problem.save) / (problem.intervals + 1)
    cells = (2.0 * share + problem.roots + problem.sources) * problem.nz
    most = int(BLOCK_BYTES // (itemsize * problem.n * (cells + 10)))
    return max(1, min(most, -(-problem.intervals // FEWEST_BLOCKS)))


def fingerprint(setup: Setup) -> str:
    """A hash of everything that a run depends on, its initial state and its options left out."""
    problem = setup.problem
    _, inputs = setup.span(0, 1, (0,))  # looks at every value, which the frame then has seen
    digest = hashlib.sha256()
    words = (problem.n, problem.gravity, problem.relation, problem.variant, problem.face_mean, problem.top)
    digest.update(repr((*words, problem.bottom, problem.roots, problem.sources, problem.knots)).encode())
    soil = {name: value for name, value in inputs.items() if name == "k_sat" or name.startswith("soil.")}
    tensors = {"times": problem.times, "dz": problem.dz, **setup.frame.seen, **soil}
    if problem.classes is not None:
        tensors["classes"] = problem.classes
    for name in sorted(tensors.keys() - {"psi0", "ponding0"}):
        array = np.ascontiguousarray(compact_view(tensors[name]).detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check_no_gradient(setup: Setup) -> None:
    """A stream keeps no graph; who might expect a gradient has to say that none is wanted."""
    if not torch.is_grad_enabled():
        return
    named = [("psi0", setup.psi0), ("ponding0", setup.ponding0), *setup.words.tensors()]
    for name, tensor in named:
        if tensor.requires_grad:
            raise ValueError(
                f"{name} requires a gradient, and a run that is streamed keeps no graph; detach it, or stream under "
                "torch.no_grad()"
            )


def _device(flow: Richards) -> torch.device:
    """Where the words are; the state read from a file goes there."""
    for _, tensor in flow.words.tensors():
        if not is_number(tensor):
            return tensor.device
    return torch.device("cpu")


def _on_cpu(report: Report) -> Report:
    return Report(**{name: getattr(report, name).cpu() for name in hdf5.PER_COLUMN})


def _plain(options: SolveOptions) -> dict[str, object]:
    return asdict(replace(options, checkpoint=None))


def _parts(target: Path) -> Path:
    return target.with_name(target.name + ".parts")


def _block_path(target: Path, number: int) -> Path:
    return _parts(target) / f"block-{number:06d}.h5"


def _finished(target: Path) -> int:
    """How many blocks are whole."""
    number = 0
    while _block_path(target, number).exists():
        number += 1
    return number


def _report_so_far(target: Path, done: int) -> Report | None:
    """The report of the first blocks together, None when there is none."""
    total = None
    for number in range(done):
        with h5py.File(_block_path(target, number), "r") as file:
            report = hdf5.get_report(file)
        total = report if total is None else joined_report([total, report])
    return total
