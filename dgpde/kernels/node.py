"""What the nodes of whole trajectories share."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


def is_tracked(tensor: Tensor) -> bool:
    """Whether reverse or forward mode asks for derivatives in this tensor."""
    if tensor.requires_grad and torch.is_grad_enabled():
        return True
    if torch.autograd.forward_ad._current_level >= 0 and (
        torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None
    ):
        return True
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


class FirstOrderOnly(torch.autograd.Function):
    """A derivative of a run. It is a node itself, so that asking for its own derivative raises.

    (Were it no node, autograd would find no way from a second derivative to the inputs and call it unused.)
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing is kept: there is no backward."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Raise: there are no second derivatives."""
        raise RuntimeError(
            "a run has no second derivatives: the gradient of a run cannot be differentiated again; for "
            "Gauss-Newton products J^T J v take J v in forward mode (torch.autograd.forward_ad), then backward"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Raise: there are no second derivatives."""
        return FirstOrderOnly.backward(ctx)  # type: ignore[return-value]


class Run(Protocol):
    """What is computed as one node: its tensors and outputs by name, and its two derivatives.

    Attributes:
        names: of the tensors that it reads, all of them differentiable, in the order of the node.
        output_names: of what it returns, in the order of the node.
        record: whether it is to keep what its derivatives need.
    """

    names: tuple[str, ...]
    record: bool

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs."""

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs."""

    def adjoint(
        self, inputs: dict[str, Tensor], cotangents: dict[str, Tensor | None], wanted: set[str]
    ) -> dict[str, Tensor]:
        """Gradients of the wanted inputs."""

    def tangent(self, inputs: dict[str, Tensor], tangents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tangents of the outputs; inputs that are not named do not move."""


def as_node(run: Run, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a run by name; differentiable in every input, in reverse and in forward mode.

    The accepted steps are constants of the differentiation: the gradient is that of the discrete solution on the
    steps that the run took.
    """
    tensors = [inputs[name] for name in run.names]
    run.record = any(is_tracked(tensor) for tensor in tensors)
    if not run.record:
        return run.forward(_named(run, tuple(tensors)))
    return dict(zip(run.output_names, RunNode.apply(run, *tensors), strict=True))


class RunNode(torch.autograd.Function):
    """(run, *inputs) -> its outputs."""

    @staticmethod
    def forward(run: Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run, and keep what the checkpoint policy says."""
        out = run.forward(_named(run, tensors))
        return tuple(out[name] for name in run.output_names)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs; autograd raises when one of them is changed in place before backward."""
        run, *tensors = inputs
        ctx.run = run
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs that ask for one."""
        tensors = ctx.saved_tensors
        wanted = tuple(i for i in range(len(tensors)) if ctx.needs_input_grad[1 + i])
        found = dict(zip(wanted, RunAdjoint.apply(ctx.run, wanted, *tensors, *cotangents), strict=True))
        # the run itself has no gradient
        return (None, *(found.get(i) for i in range(len(tensors))))

    @staticmethod
    def jvp(ctx: Any, _run: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        """Tangents of the outputs, all of them."""
        return RunTangent.apply(ctx.run, *ctx.saved_tensors, *tangents)


class RunAdjoint(FirstOrderOnly):
    """(run, numbers of the wanted inputs, *inputs, *cotangents of the outputs) -> their gradients."""

    @staticmethod
    def forward(run: Run, wanted: tuple[int, ...], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Walk the run backwards."""
        names = [run.names[i] for i in wanted]
        cotangents = dict(zip(run.output_names, tensors[len(run.names) :], strict=True))
        gradients = run.adjoint(_named(run, tensors), cotangents, set(names))
        return tuple(gradients[name] for name in names)


class RunTangent(FirstOrderOnly):
    """(run, *inputs, *tangents of the inputs) -> tangents of the outputs."""

    @staticmethod
    def forward(run: Run, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Walk the run forwards, along its accepted steps."""
        moving = zip(run.names, tensors[len(run.names) :], strict=True)
        tangents = {name: tangent.detach() for name, tangent in moving if tangent is not None}
        outputs = run.tangent(_named(run, tensors), tangents)
        return tuple(outputs[name] for name in run.output_names)


def _named(run: Run, tensors: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
    return {name: t.detach() for name, t in zip(run.names, tensors, strict=False) if t is not None}
