"""The C++ twin: ``dgpde._C.TransportEngine``, one for each run, which keeps its work vectors from step to step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgpde._native import native_module
from dgpde.kernels.flow_stencil.problem import SIDES
from dgpde.kernels.transport_stencil.dispersion import Conducted, Dispersion
from dgpde.kernels.transport_stencil.problem import PAIRS, SCHEMES, Faces, Geometry, Solved

COEFFICIENTS = ("longitudinal", "horizontal", "vertical", "pore")
MAX_ITERATIONS = 400  # of a linear solve


class CpuEngine:
    """What the steps of a run share: the geometry's arrays and the native engine."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, self.module = geometry, native_module()
        self.native: Any = self.module.TransportEngine()
        self.halves = [(0.5 * width).contiguous() for width in geometry.widths]
        self.inverse = geometry.inverse
        self.holder: CpuNetwork | None = None  # whose faces the engine points to
        # network, diagonal and column that its matrix was made from
        self.matrix_of: tuple[CpuNetwork, Tensor, Tensor | None] | None = None

    @staticmethod
    def disperse(
        geometry: Geometry, flow: dict[int, Tensor], water: dict[str, Tensor], given: Dispersion
    ) -> Conducted:
        """``dispersion.disperse`` by the C++ kernel; differentiable once."""
        names = [name for name, value in vars(given).items() if value is not None]
        tensors = [
            *(flow[k] for k in geometry.axes),
            *water.values(),
            *(getattr(given, name) for name in names),
        ]
        found = _Disperse.apply(geometry, tuple(water), tuple(names), *tensors)
        count = len(geometry.axes)
        return dict(zip(geometry.axes, found[:count], strict=True)), dict(
            zip(geometry.pairs, found[count:], strict=True)
        )

    def __call__(self, faces: Faces) -> CpuNetwork:
        """The network of one solute in one step."""
        return CpuNetwork(self, faces)


class CpuNetwork:
    """See ``problem.Network``."""

    name = "cpu"

    def __init__(self, engine: CpuEngine, faces: Faces) -> None:
        self.engine, self.geometry = engine, engine.geometry
        self.faces = Faces(
            *({key: v.contiguous() for key, v in part.items()} for part in vars(faces).values())
        )
        self.threads = torch.get_num_threads()
        self._kept: tuple[Tensor | None, ...] = ()
        self._applied: tuple[Tensor, int, Tensor] | None = None

    def _point(self) -> Any:
        engine, geometry = self.engine, self.geometry
        if engine.holder is not self:
            halves = [half.data_ptr() for half in engine.halves]
            inverse = [_address(engine.inverse.get(k)) for k in range(3)]
            scheme = SCHEMES.index(geometry.scheme)
            engine.native.set(geometry.shape, scheme, halves, inverse, *_addresses(self.faces))
            engine.holder = self
        return engine.native

    def apply(self, c: Tensor) -> Tensor:
        """N(c); of the tensor that was asked for last it is still there, and not to be written to."""
        known = self._applied
        if known is None or known[0] is not c or known[1] != c._version:
            known = self._applied = (c, c._version, self.push(c, self.faces))
        return known[2]

    def push(self, c: Tensor, faces: Faces) -> Tensor:
        """dN(c) for tangents of the faces; N is linear in them."""
        c, out = c.contiguous(), torch.empty_like(c, memory_format=torch.contiguous_format)
        by = Faces(*({key: v.contiguous() for key, v in part.items()} for part in vars(faces).values()))
        self._point().apply(c.data_ptr(), *_addresses(by), out.data_ptr(), self.threads)
        return out

    def setup(self, diagonal: Tensor, column: Tensor | None, at: Tensor) -> None:
        """Assemble the matrix and its factors; only what depends on ``at`` when the rest is what it was."""
        at, made_from, known = at.contiguous(), (self, diagonal, column), self.engine.matrix_of
        if known is not None and all(one is two for one, two in zip(made_from, known, strict=True)):
            self._point().linearise(at.data_ptr(), self.threads)
            return
        self.engine.matrix_of = made_from
        self._kept = (diagonal.contiguous(), None if column is None else column.contiguous())
        self._point().setup(*(_address(value) for value in self._kept), at.data_ptr(), self.threads)

    def solve(self, rhs: Tensor, guess: Tensor | None, tolerance: float, transposed: bool) -> Solved:
        """By the stabilised bi-conjugate gradients with incomplete factors of the upwind matrix."""
        rhs = rhs.contiguous()
        x = torch.zeros_like(rhs) if guess is None else guess.clone(memory_format=torch.contiguous_format)
        options = self.engine.module.LinearOptions()
        options.tolerance, options.max_iterations = tolerance, MAX_ITERATIONS
        options.transposed, options.guess, options.threads = transposed, guess is not None, self.threads
        report = self._point().solve(rhs.data_ptr(), x.data_ptr(), options)
        return Solved(x, report.iterations, report.residual, report.status == 0)

    def pull(self, multiplier: Tensor, c: Tensor) -> Faces:
        """d/d(faces) of -<multiplier, N(c)>."""
        found = Faces(
            *({key: torch.empty_like(v) for key, v in part.items()} for part in vars(self.faces).values())
        )
        multiplier, c = multiplier.contiguous(), c.contiguous()
        self._point().pull(multiplier.data_ptr(), c.data_ptr(), *_addresses(found), self.threads)
        return found


class _Disperse(torch.autograd.Function):
    """(geometry, names of sides and of coefficients, *flows, *water of the sides, *coefficients) -> conductances and
    cross terms.
    """

    @staticmethod
    def forward(
        ctx: Any, geometry: Geometry, sides: tuple[str, ...], names: tuple[str, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """All faces in one pass."""
        ctx.given = (geometry, sides, names)
        ctx.save_for_backward(*tensors)
        if not geometry.axes:
            return ()
        call, kept = _dispersion_call(geometry, sides, names, tensors)
        conductance = {k: torch.empty(geometry.shape, dtype=torch.float64) for k in geometry.axes}
        cross = {pair: torch.empty(geometry.shape, dtype=torch.float64) for pair in geometry.pairs}
        for k, value in conductance.items():
            call.set("conductance", value.data_ptr(), k)
        for pair, value in cross.items():
            call.set("cross", value.data_ptr(), PAIRS.index(pair))
        native_module().transport_disperse(call)
        del kept
        return (*conductance.values(), *cross.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor | None, ...]:
        """The same faces once more; geometry and names have no gradient."""
        geometry, sides, names = ctx.given
        tensors = ctx.saved_tensors
        call, kept = _dispersion_call(geometry, sides, names, tensors)
        bars = tuple(bar.contiguous() for bar in bars)
        count = len(geometry.axes)
        for k, bar in zip(geometry.axes, bars[:count], strict=True):
            call.set("bar_conductance", bar.data_ptr(), k)
        for pair, bar in zip(geometry.pairs, bars[count:], strict=True):
            call.set("bar_cross", bar.data_ptr(), PAIRS.index(pair))
        found: list[Tensor | None] = []
        slots = [("grad_flow", k) for k in geometry.axes] + [("grad_side", SIDES.index(s)) for s in sides]
        slots += [("grad_coefficient", COEFFICIENTS.index(name)) for name in names]
        for (name, slot), tensor, wanted in zip(slots, tensors, ctx.needs_input_grad[3:], strict=True):
            if not wanted:
                found.append(None)
                continue
            gradient = torch.zeros(
                geometry.shape if name == "grad_coefficient" else tensor.shape, dtype=torch.float64
            )
            call.set(name, gradient.data_ptr(), slot)
            found.append(gradient)
        native_module().transport_disperse_reverse(call)
        del kept
        return (
            None,
            None,
            None,
            *(None if g is None else g.sum_to_size(t.shape) for g, t in zip(found, tensors, strict=True)),
        )


def _dispersion_call(
    geometry: Geometry, sides: tuple[str, ...], names: tuple[str, ...], tensors: tuple[Tensor, ...]
) -> tuple[Any, list[Tensor]]:
    """The call with its inputs, and the tensors that it points to."""
    count = len(geometry.axes)
    kept = [tensor.contiguous() for tensor in tensors[: count + len(sides)]]
    coefficients = dict(zip(names, tensors[count + len(sides) :], strict=True))
    strides = [0, 0, 0, 0]
    for name, value in coefficients.items():
        if value.numel() > 1:
            strides[COEFFICIENTS.index(name)] = 1
            coefficients[name] = value.expand(geometry.shape).contiguous()
    call = native_module().DispersionCall(geometry.shape, torch.get_num_threads(), strides)
    widths = [width.contiguous() for width in geometry.widths]
    for k in range(3):
        call.set("width", widths[k].data_ptr(), k)
    for k, value in geometry.inverse.items():
        call.set("inverse", value.data_ptr(), k)
    for k, value in zip(geometry.axes, kept[:count], strict=True):
        call.set("flow", value.data_ptr(), k)
    for side, value in zip(sides, kept[count:], strict=True):
        call.set("side", value.data_ptr(), SIDES.index(side))
    for name, value in coefficients.items():
        call.set("coefficient", value.data_ptr(), COEFFICIENTS.index(name))
    return call, [*kept, *widths, *coefficients.values()]


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _addresses(faces: Faces) -> tuple[list[int], list[int], list[int]]:
    return (
        [_address(faces.flow.get(k)) for k in range(3)],
        [_address(faces.conductance.get(k)) for k in range(3)],
        [_address(faces.cross.get(pair)) for pair in PAIRS],
    )
