"""The operators ``snn_ext::vsn`` and ``snn_ext::vsn_backward``: schema, shapes and autograd.

Strict about their arguments, unlike `snn_ext.functional.vsn`, which prepares them: `v0` has the shape
of one time step, the state and every parameter share one dtype (`reference.compute_dtype`) and every
tensor shares one device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..neurons.vsn import VSN
from ..surrogate import Surrogate, from_name
from . import dispatch, reference

_TENSORS = "Tensor x_seq, Tensor v0, Tensor decay, Tensor gain, Tensor threshold"
_OPTIONS = (
    "str activation, str surrogate, float scale, bool spiking, bool strict, bool detach_reset, "
    "bool reset_delay"
)
torch.library.define(
    "snn_ext::vsn",
    f"({_TENSORS}, {_OPTIONS}, bool return_v_seq) -> (Tensor y_seq, Tensor v, Tensor v_seq)",
)
torch.library.define(
    "snn_ext::vsn_backward",
    f"(Tensor grad_y_seq, Tensor grad_v, Tensor grad_v_seq, {_TENSORS}, {_OPTIONS}, bool parameter_grads)"
    " -> (Tensor grad_x_seq, Tensor grad_v0, Tensor grad_decay, Tensor grad_gain, Tensor grad_threshold)",
)


def _unpack(
    decay: Tensor, gain: Tensor, threshold: Tensor, options: tuple[Any, ...]
) -> tuple[VSN, dict[str, Tensor], Surrogate, dict[str, bool]]:
    activation, name, scale, spiking, strict, detach_reset, reset_delay = options
    return (
        VSN(activation),
        {"decay": decay, "gain": gain, "threshold": threshold},
        from_name(name, scale, spiking=spiking, strict=strict),
        {"detach_reset": detach_reset, "reset_delay": reset_delay},
    )


@torch.library.impl("snn_ext::vsn", "CompositeExplicitAutograd")
def _vsn(
    x_seq: Tensor, v0: Tensor, decay: Tensor, gain: Tensor, threshold: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dispatch.implementation(x_seq.device)
    neuron, p, surrogate, when = _unpack(decay, gain, threshold, options[:-1])
    return reference.forward(neuron, x_seq, v0, p, surrogate, **when, return_v_seq=options[-1])


@torch.library.impl("snn_ext::vsn_backward", "CompositeExplicitAutograd")
def _vsn_backward(
    grad_y_seq: Tensor,
    grad_v: Tensor,
    grad_v_seq: Tensor,
    x_seq: Tensor,
    v0: Tensor,
    decay: Tensor,
    gain: Tensor,
    threshold: Tensor,
    *options: Any,
) -> tuple[Tensor, ...]:
    dispatch.implementation(x_seq.device)
    neuron, p, surrogate, when = _unpack(decay, gain, threshold, options[:-1])
    grad_x, grad_v0, grad_p = reference.backward(
        neuron,
        grad_y_seq,
        grad_v,
        grad_v_seq,
        x_seq,
        v0,
        p,
        surrogate,
        **when,
        parameter_grads=options[-1],
    )
    return grad_x, grad_v0, *(grad_p[name] for name in neuron.parameters)


@torch.library.register_fake("snn_ext::vsn")
def _vsn_fake(x_seq: Tensor, v0: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    v_seq = torch.empty_like(x_seq if rest[-1] else x_seq.new_empty(0), dtype=v0.dtype)
    return torch.empty_like(x_seq), torch.empty_like(x_seq[0], dtype=v0.dtype), v_seq


@torch.library.register_fake("snn_ext::vsn_backward")
def _vsn_backward_fake(
    grad_y_seq: Tensor, grad_v: Tensor, grad_v_seq: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(tensor) for tensor in rest[:5])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.options = inputs[5:-1]


def _autograd(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    parameter_grads = any(ctx.needs_input_grad[2:5])
    gradients = torch.ops.snn_ext.vsn_backward(*grads, *ctx.saved_tensors, *ctx.options, parameter_grads)
    return *gradients, *(None for _ in ctx.options), None


def _no_double_backward(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "snn_ext::vsn cannot be differentiated twice by autograd; for second derivatives use torch.func "
        "(grad, hessian, jvp), which takes the differentiable reference"
    )


torch.library.register_autograd("snn_ext::vsn", _autograd, setup_context=_setup_context)
torch.library.register_autograd("snn_ext::vsn_backward", _no_double_backward)
