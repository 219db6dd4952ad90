r"""The reference implementation: a Python loop over time, generic over the neurons.

A neuron gives its equations and their derivatives (`snn_ext.neurons`); this module unrolls them.
`unroll` is differentiable by autograd as it stands, and serves any callable surrogate or activation.
`forward` and `backward` are what the operators run: the forward keeps nothing, and the backward
recomputes the potentials from the input.

**When the reset happens.**  With ``reset_delay=False`` the state that goes in and comes out is the
potential :math:`v_t` after the reset (SpikingJelly's ``v``).  With ``reset_delay=True`` it is the
potential :math:`h_t` before the reset (snnTorch's ``mem``), and the reset of the state that came in
is made first.  Both give the same events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from ..neurons.leaky import (
    Gradients,
    Parameters,
    Spike,
    charge,
    charge_backward,
    fire,
    fire_backward,
)
from ..surrogate import Surrogate


class Neuron(Protocol):
    """What a module of `snn_ext.neurons` provides."""

    parameters: ClassVar[tuple[str, ...]]

    def emit(self, x: Tensor, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> Tensor: ...

    def emit_backward(
        self, gy: Tensor, x: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike
    ) -> tuple[Tensor, Tensor | None, Tensor, Gradients]: ...

    def reset(self, h: Tensor, o: Tensor, p: Parameters) -> Tensor: ...

    def reset_backward(
        self, gv: Tensor, h: Tensor, o: Tensor, p: Parameters
    ) -> tuple[Tensor, Tensor, Gradients]: ...


class Step(NamedTuple):
    """One time step: input, carried potential, charged potential, events, emission, next carried."""

    x: Tensor
    v: Tensor
    h: Tensor
    o: Tensor
    y: Tensor
    v_next: Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the state for an input of `dtype`: half precisions keep a float32 state."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def unroll(
    neuron: Neuron,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    spike: Spike,
    *,
    detach_reset: bool,
    reset_delay: bool,
    state_quant: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Step]:
    """Yield the time steps of `neuron`; see the module for `reset_delay`."""

    def reset(h: Tensor, o: Tensor) -> Tensor:
        return neuron.reset(h, o.detach() if detach_reset else o, p)

    v = reset(v0, fire(v0, p, spike)) if reset_delay else v0
    for x in x_seq.unbind(0):
        x = x.to(v0.dtype)
        h = charge(x, v, p)
        if state_quant is not None:
            h = state_quant(h)
        o = fire(h, p, spike)
        v_next = reset(h, o)
        yield Step(x, v, h, o, neuron.emit(x, h, o, p, spike), v_next)
        v = v_next


def forward(
    neuron: Neuron,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    return_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the emitted sequence, the final potential and, if asked, the potential sequence."""
    y_seq = torch.empty_like(x_seq)
    v_seq = torch.empty_like(x_seq if return_v_seq else x_seq.new_empty(0), dtype=v0.dtype)
    final = torch.empty_like(x_seq[0], dtype=v0.dtype)
    steps = unroll(
        neuron, x_seq, v0, p, _forward_spike(surrogate), detach_reset=detach_reset, reset_delay=reset_delay
    )
    for t, s in enumerate(steps):
        y_seq[t] = s.y
        state = s.h if reset_delay else s.v_next
        if return_v_seq:
            v_seq[t] = state
    final.copy_(state)
    return y_seq, final, v_seq


def backward(
    neuron: Neuron,
    grad_y_seq: Tensor,
    grad_v: Tensor,
    grad_v_seq: Tensor,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    parameter_grads: bool,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the gradients of `x_seq`, `v0` and of each parameter (zeros if not `parameter_grads`)."""
    spike, slope = _forward_spike(surrogate), surrogate.gradient
    steps = list(unroll(neuron, x_seq, v0, p, spike, detach_reset=detach_reset, reset_delay=reset_delay))
    grad_x_seq = torch.empty_like(x_seq)
    grad_p = {name: torch.zeros_like(p[name]) for name in neuron.parameters}

    def add(grads: Gradients) -> None:
        if parameter_grads:
            for name, grad in grads.items():
                grad_p[name] += grad().sum_to_size(grad_p[name].shape)

    def through_reset(gv: Tensor, h: Tensor, o: Tensor) -> Tensor:
        gh, go, grads = neuron.reset_backward(gv, h, o, p)
        add(grads)
        return gh if detach_reset else gh + through_fire(go, h)

    def through_fire(go: Tensor, h: Tensor) -> Tensor:
        gh, grads = fire_backward(go, h, p, slope)
        add(grads)
        return gh

    state_grads = list(grad_v_seq.unbind(0)) if grad_v_seq.numel() else [None] * len(steps)
    gv = torch.zeros_like(v0)
    for t in range(len(steps) - 1, -1, -1):
        s = steps[t]
        g_state = state_grads[t]
        if t == len(steps) - 1:
            g_state = grad_v if g_state is None else g_state + grad_v
        if g_state is not None and not reset_delay:
            gv = gv + g_state
        gh = through_reset(gv, s.h, s.o)
        if g_state is not None and reset_delay:
            gh = gh + g_state
        gx, gh_emit, go, grads = neuron.emit_backward(grad_y_seq[t].to(v0.dtype), s.x, s.h, s.o, p, slope)
        add(grads)
        gh = gh + through_fire(go, s.h)
        if gh_emit is not None:
            gh = gh + gh_emit
        gx_charge, gv, grads = charge_backward(gh, s.x, s.v, p)
        add(grads)
        grad_x_seq[t] = gx + gx_charge
    if reset_delay:
        gv = through_reset(gv, v0, fire(v0, p, spike))
    grad_v0 = torch.empty_like(v0).copy_(gv)
    return grad_x_seq, grad_v0, grad_p


def _forward_spike(surrogate: Surrogate) -> Spike:
    return surrogate.step if surrogate.spiking else surrogate.primitive
