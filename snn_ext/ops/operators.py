"""The operators ``snn_ext::<neuron>`` and ``snn_ext::<neuron>_backward``: schema, shapes and autograd.

`declare` makes both from a neuron of `snn_ext.neurons`, with its `parameters` as tensors and its
`options`.  The operators are strict about their arguments, unlike `snn_ext.functional`, which prepares
them: `v0` has the shape of one time step, the state and every parameter share one dtype
(`reference.compute_dtype`) and every tensor shares one device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..neurons.leaky import Leaky, Parameters
from ..neurons.lifb import LIFB
from ..neurons.soft_reset_mpr import SoftResetMPR
from ..neurons.vsn import VSN
from ..surrogate import Surrogate, from_name
from . import dispatch

NEURONS: tuple[type[Leaky], ...] = (VSN, LIFB, SoftResetMPR)

_COMMON = (
    "str surrogate, float scale, bool spiking, bool strict, bool detach_reset, bool reset_delay, "
    "bool constant_start"
)


def run(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool,
    return_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Call the operator of `neuron`; its parameters stand in `p` under their names."""
    return getattr(torch.ops.snn_ext, neuron.name)(
        x_seq,
        v0,
        *(p[name] for name in neuron.parameters),
        *(getattr(neuron, name) for name in neuron.options),
        surrogate.name,
        surrogate.scale,
        surrogate.spiking,
        surrogate.strict,
        detach_reset,
        reset_delay,
        constant_start,
        return_v_seq,
    )


def declare(neuron: type[Leaky]) -> None:
    """Register the operators of `neuron`: declaration, dispatch to an implementation, and autograd."""
    name, count = f"snn_ext::{neuron.name}", len(neuron.parameters)
    tensors = ", ".join(f"Tensor {tensor}" for tensor in ("x_seq", "v0", *neuron.parameters))
    own = "".join(f"{type(getattr(neuron, option)).__name__} {option}, " for option in neuron.options)
    options = own + _COMMON
    grads = ", ".join(f"Tensor grad_{tensor}" for tensor in ("x_seq", "v0", *neuron.parameters))
    torch.library.define(
        name, f"({tensors}, {options}, bool return_v_seq) -> (Tensor y_seq, Tensor v, Tensor v_seq)"
    )
    torch.library.define(
        f"{name}_backward",
        f"(Tensor grad_y_seq, Tensor grad_v, Tensor grad_v_seq, {tensors}, {options}, bool parameter_grads)"
        f" -> ({grads})",
    )

    def unpack(
        arguments: tuple[Any, ...],
    ) -> tuple[Leaky, Tensor, Tensor, dict[str, Tensor], Surrogate, dict[str, bool]]:
        x_seq, v0, *rest = arguments
        *own, surrogate, scale, spiking, strict, detach_reset, reset_delay, constant_start = rest[count:]
        return (
            neuron(*own),
            x_seq,
            v0,
            dict(zip(neuron.parameters, rest[:count], strict=True)),
            from_name(surrogate, scale, spiking=spiking, strict=strict),
            {
                "detach_reset": detach_reset,
                "reset_delay": reset_delay,
                "constant_start": constant_start,
            },
        )

    @torch.library.impl(name, "CompositeExplicitAutograd")
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        equations, x_seq, v0, p, surrogate, when = unpack(arguments[:-1])
        run_by = dispatch.choose(x_seq.device)
        return run_by.forward(equations, x_seq, v0, p, surrogate, **when, return_v_seq=arguments[-1])

    @torch.library.impl(f"{name}_backward", "CompositeExplicitAutograd")
    def backward(
        grad_y_seq: Tensor, grad_v: Tensor, grad_v_seq: Tensor, *arguments: Any
    ) -> tuple[Tensor, ...]:
        equations, x_seq, v0, p, surrogate, when = unpack(arguments[:-1])
        run_by = dispatch.choose(x_seq.device)
        grad_x, grad_v0, grad_p = run_by.backward(
            equations,
            grad_y_seq,
            grad_v,
            grad_v_seq,
            x_seq,
            v0,
            p,
            surrogate,
            **when,
            parameter_grads=arguments[-1],
        )
        return grad_x, grad_v0, *(grad_p[parameter] for parameter in neuron.parameters)

    @torch.library.register_fake(name)
    def forward_fake(x_seq: Tensor, v0: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        v_seq = torch.empty_like(x_seq if rest[-1] else x_seq.new_empty(0), dtype=v0.dtype)
        return torch.empty_like(x_seq), torch.empty_like(x_seq[0], dtype=v0.dtype), v_seq

    @torch.library.register_fake(f"{name}_backward")
    def backward_fake(
        grad_y_seq: Tensor, grad_v: Tensor, grad_v_seq: Tensor, *arguments: Any
    ) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in arguments[: 2 + count])

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[: 2 + count])
        ctx.options = inputs[2 + count : -1]

    def autograd(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parameter_grads = any(ctx.needs_input_grad[2 : 2 + count])
        operator = getattr(torch.ops.snn_ext, f"{neuron.name}_backward")
        gradients = operator(*grads, *ctx.saved_tensors, *ctx.options, parameter_grads)
        return *gradients, *(None for _ in ctx.options), None

    def no_double_backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            f"{name} cannot be differentiated twice by autograd; for second derivatives use torch.func "
            "(grad, hessian, jvp), which takes the differentiable reference"
        )

    torch.library.register_autograd(name, autograd, setup_context=setup_context)
    torch.library.register_autograd(f"{name}_backward", no_double_backward)


for _neuron in NEURONS:
    declare(_neuron)
