"""A run that is written to disk as it is computed, and can be resumed after a kill.

An HDF5 file that is being written when its process is killed may be lost. So each block of intervals becomes
a file of its own, in the folder ``<path>.parts``, under a temporary name until it is whole. The last block holds
the state from which the run goes on: psi, ponding and the next step of each column, or of the field. When all are
there they are copied, one at a time, into the one file that was asked for, beside which an XDMF file describes a
section or a domain, and the folder is removed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch
from torch import Tensor

from dgpde.assembly import Save, Times, check_start, compact_view, set_up
from dgpde.field import set_up_field
from dgpde.frame import is_number
from dgpde.io import hdf5
from dgpde.io.parts import ColumnRun, Part, Parted, RunOfField
from dgpde.io.xdmf import Shown, View, write_view, xdmf_beside
from dgpde.kernels.column_flow.problem import Report
from dgpde.options import SolveOptions
from dgpde.progress import ProgressBar
from dgpde.series import Value
from dgpde.solution import joined_report

if TYPE_CHECKING:
    from dgpde.richards import Richards

HEADER = "run.h5"


def start(run: Parted, path: str | Path, block: int | None, progress: bool) -> Path:
    """Begin a run; see ``Richards.stream``."""
    target = Path(path)
    parts = _parts(target)
    for existing in (target, parts):
        if existing.exists():
            raise FileExistsError(
                f"path {existing} exists; choose another name, remove it, or go on with Richards.resume"
            )
    if run.flow.grid.lateral and xdmf_beside(target) == target:
        raise ValueError(f"path {target} is that of the XDMF file beside it; give it another ending, as .h5")
    if run.options.record_steps:
        raise ValueError(
            "options.record_steps cannot be kept by a run that is streamed; use solve and to_hdf5"
        )
    if block is None:
        block = run.default_block()
    elif isinstance(block, bool) or not isinstance(block, int):
        raise TypeError(f"block must be an integer, not {type(block).__name__}")
    elif block < 1:
        raise ValueError(f"block must be at least 1 interval, it is {block}")
    _check_no_gradient(run)
    parts.mkdir(parents=True)
    temporary = parts / (HEADER + ".tmp")
    with h5py.File(temporary, "w") as file:
        hdf5.put_header(file, run.flow.grid, run.times, run.save, run.cells)
        file.attrs["block"] = block
        file.attrs["options"] = json.dumps(_plain(run.options))
        file.attrs["fingerprint"] = run.fingerprint()
        file["psi0"] = compact_view(run.psi0).detach().cpu().numpy()
        file["ponding0"] = compact_view(run.ponding0).detach().cpu().numpy()
    hdf5.publish(temporary, parts / HEADER)
    return _run(run, target, block, 0, None, progress)


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
        cells = (
            np.transpose(np.unravel_index(file["cells"][...], flow.grid.shape)) if "cells" in file else None
        )
    run = parted(flow, psi0, times, options or begun_with, save, cells, ponding0)
    _check_no_gradient(run)
    if run.fingerprint() != known:
        raise ValueError(
            f"path {target} was begun with another model: grid, soil, boundaries, sources and their series must be "
            "the same for a run to go on"
        )
    done = _finished(target)
    if done == 0:
        return _run(run, target, block, 0, None, progress)
    with h5py.File(_block_path(target, done - 1), "r") as file:
        state = {name: torch.from_numpy(value[...]).to(device) for name, value in file["state"].items()}
    return _run(run, target, block, done, state, progress)


@torch.no_grad()
def _run(
    run: Parted, target: Path, block: int, done: int, state: dict[str, Tensor] | None, progress: bool
) -> Path:
    """Compute and write the blocks that are missing, then join them."""
    report = _report_so_far(target, done)
    bar = ProgressBar(run.times, done * block) if progress and done * block < len(run.times) - 1 else None
    for part in run.parts(block, done * block, state, bar):
        report = part.report if report is None else joined_report([report, part.report])
        if run.options.on_failure == "raise" and bool((part.report.status != 0).any()):
            raise part.failure()
        _write_block(run, target, part, part.first // block, report)
    _join(run, target, block)
    return target


def _write_block(run: Parted, target: Path, part: Part, number: int, report: Report) -> None:
    """One block as a file: its part of the trajectory, its report, and the state at its end."""
    path = _block_path(target, number)
    temporary = path.with_name(path.name + ".tmp")
    quantities = hdf5.field_quantities(run.flow.grid, run.cells is not None)
    with h5py.File(temporary, "w") as file:
        for name, value in part.values(report).items():
            hdf5.put(file, name, quantities[name], value)
        hdf5.put_report(file, part.report)
        group = file.create_group("state")
        for name, value in part.state.items():
            group[name] = value.detach().cpu().numpy()
    hdf5.publish(temporary, path)


def _join(run: Parted, target: Path, block: int) -> None:
    """Copy the blocks into the file that was asked for, and remove them."""
    intervals = len(run.times) - 1
    count = -(-intervals // block)
    lengths = {"saved_time": len(run.save), "time": intervals + 1, "interval": intervals}
    temporary = target.with_name(target.name + ".tmp")
    quantities = hdf5.field_quantities(run.flow.grid, run.cells is not None)
    with h5py.File(temporary, "w") as file:
        hdf5.put_header(file, run.flow.grid, run.times, run.save, run.cells)
        row = dict.fromkeys(quantities, 0)
        for number in range(count):
            with h5py.File(_block_path(target, number), "r") as part:
                for name, quantity in quantities.items():
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
        shown = [Shown(name, name) for name in hdf5.STATE if name in file]
        size, width = tuple(file["psi"].shape), file["psi"].dtype.itemsize
    if run.flow.grid.lateral:
        view = View(run.flow.grid, run.times[list(run.save)].tolist(), size, width, run.cells)
        write_view(xdmf_beside(target), view, target.name, shown)
    hdf5.publish(temporary, target)
    shutil.rmtree(_parts(target))


def parted(
    flow: Richards,
    psi0: Value,
    times: Times,
    options: SolveOptions,
    save: Save,
    save_cells: object,
    ponding0: Value,
) -> Parted:
    """The run of a model; arguments as for ``Richards.solve``."""
    if flow.words.engine == "column":
        return ColumnRun(flow, set_up(flow.words, psi0, times, options, save, ponding0))
    start = check_start(flow.words, psi0, times, options, ponding0)
    run, inputs = set_up_field(flow.words, start, options, save, save_cells)
    return RunOfField(flow, start, run, inputs)


def _check_no_gradient(run: Parted) -> None:
    """A stream keeps no graph; who might expect a gradient has to say that none is wanted."""
    if not torch.is_grad_enabled():
        return
    named = [("psi0", run.psi0), ("ponding0", run.ponding0), *run.flow.words.tensors()]
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
