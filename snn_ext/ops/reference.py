r"""The reference implementation: a Python loop over time, generic over the neurons.

A neuron gives its equations and their derivatives (`snn_ext.neurons`); this module unrolls them.
`unroll` is differentiable by autograd as it stands, and serves any callable surrogate or activation.
`forward` and `backward` are what the operators run: the forward keeps nothing, and the backward
recomputes the potentials from the input.

**When the reset happens.**  With ``reset_delay=False`` the state that goes in and comes out is the
potential :math:`v_t` after the reset (SpikingJelly's ``v``).  With ``reset_delay=True`` it is the
potential :math:`h_t` before the reset (snnTorch's ``mem``), and the reset of the state that came in
is made first.  Both give the same events.

With ``constant_start`` that first reset is a constant: nothing is differentiated through it.  So it is when
the state that comes in is none of a graph, as after the reset, too, it would be.

**Spikes sent.**  With a `power` of at least 1, the number of spikes that each neuron has sent is returned as
well, summed over steps (`Leaky.transmitted`); with 0 they are not counted.

A ``"late"`` reset is snnTorch's ``"subtract"``: whatever stands above threshold in the state that comes in
is subtracted, detached, after the decay.  With ``reset_delay=False`` snnTorch also subtracts within the
step what has not been subtracted at its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..neurons.leaky import Gradients, Leaky, Parameters, Spike
from ..surrogate import Surrogate
from .gate import compute_dtype, settled_grads


class Step(NamedTuple):
    """One time step: input, carried potential, events whose reset was due, charged potential, events,
    emission, events to be reset now, next carried potential."""

    x: Tensor
    v: Tensor
    due: Tensor | None
    h: Tensor
    o: Tensor
    y: Tensor
    reset: Tensor | None
    v_next: Tensor


def unroll(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    spike: Spike,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool = False,
    state_quant: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Step]:
    """Yield the time steps of `neuron`; see the module for `reset_delay`."""
    late = neuron.reset_mode in ("late", "again")

    def reset(h: Tensor, o: Tensor) -> Tensor:
        return neuron.reset(h, o.detach() if detach_reset else o, p)

    v = v0
    if reset_delay and not late:
        v = reset(v0, neuron.fire(v0, p, spike))
        v = v.detach() if constant_start else v
    for x in x_seq.unbind(0):
        x = x.to(v0.dtype)
        due = neuron.fire(v, p, spike).detach() if late else None
        h = neuron.charge(x, v, due, p)
        if state_quant is not None:
            h = state_quant(h)
        o = neuron.fire(h, p, spike)
        now = None if late and reset_delay else o if due is None else o - due
        v_next = h if now is None else reset(h, now)
        yield Step(x, v, due, h, o, neuron.emit(x, h, o, p, spike), now, v_next)
        v = v_next


def forward(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor | None,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool,
    return_v_seq: bool,
    power: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return the emitted sequence, the final potential and, if asked, potential sequence and spikes sent."""
    v0 = start(v0, x_seq)
    y_seq = torch.empty_like(x_seq)
    v_seq = torch.empty_like(x_seq, dtype=v0.dtype) if return_v_seq else None
    final = torch.empty_like(x_seq[0], dtype=v0.dtype)
    sent = torch.zeros_like(final) if power else None
    spike = _forward_spike(surrogate)
    steps = unroll(neuron, x_seq, v0, p, spike, detach_reset=detach_reset, reset_delay=reset_delay)
    for t, s in enumerate(steps):
        y_seq[t] = s.y
        state = s.h if reset_delay else s.v_next
        if v_seq is not None:
            v_seq[t] = state
        if sent is not None:
            sent += neuron.transmitted(s.h, s.o, p, spike, power)
    final.copy_(state)
    return y_seq, final, v_seq, sent


def backward(
    neuron: Leaky,
    grad_y_seq: Tensor,
    grad_v: Tensor | None,
    grad_v_seq: Tensor | None,
    x_seq: Tensor,
    v0: Tensor | None,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool,
    wanted: Collection[str],
    power: float = 0.0,
    grad_sent: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Return the gradients of `x_seq`, of `v0` if given, and of the parameters that are `wanted`."""
    given, v0 = v0 is not None, start(v0, x_seq)
    grad_y_seq, grad_v, grad_v_seq, grad_sent = settled_grads(grad_y_seq, grad_v, grad_v_seq, grad_sent)
    spike, slope = _forward_spike(surrogate), surrogate.gradient
    steps = list(unroll(neuron, x_seq, v0, p, spike, detach_reset=detach_reset, reset_delay=reset_delay))
    grad_x_seq = torch.empty_like(x_seq)
    grad_p = {name: torch.zeros_like(p[name]) for name in neuron.parameters if name in wanted}

    def add(grads: Gradients) -> None:
        for name, grad in grads.items():
            if name in grad_p:
                grad_p[name] += grad().sum_to_size(grad_p[name].shape)

    def through_reset(gv: Tensor, h: Tensor, o: Tensor) -> tuple[Tensor, Tensor | None]:
        gh, go, grads = neuron.reset_backward(gv, h, o, p)
        add(grads)
        return gh, None if detach_reset else go

    def through_fire(go: Tensor, h: Tensor) -> Tensor:
        gh, grads = neuron.fire_backward(go, h, p, slope)
        add(grads)
        return gh

    state_grads: list[Tensor | None] = [None] * len(steps)
    if grad_v_seq is not None and grad_v_seq.numel():
        state_grads = list(grad_v_seq.unbind(0))
    gv = torch.zeros_like(v0)
    for t in range(len(steps) - 1, -1, -1):
        s = steps[t]
        g_state = state_grads[t]
        if t == len(steps) - 1 and grad_v is not None:
            g_state = grad_v if g_state is None else g_state + grad_v
        if g_state is not None and not reset_delay:
            gv = gv + g_state
        gh, go_reset = (gv, None) if s.reset is None else through_reset(gv, s.h, s.reset)
        if g_state is not None and reset_delay:
            gh = gh + g_state
        gx_emit, gh_emit, go, grads = neuron.emit_backward(
            grad_y_seq[t].to(v0.dtype), s.x, s.h, s.o, p, slope, spike
        )
        add(grads)
        if grad_sent is not None:
            gh_sent, go_sent, grads = neuron.transmitted_backward(grad_sent, s.h, s.o, p, slope, spike, power)
            add(grads)
            go = go + go_sent
            if gh_sent is not None:
                gh = gh + gh_sent
        gh = gh + through_fire(go if go_reset is None else go + go_reset, s.h)
        if gh_emit is not None:
            gh = gh + gh_emit
        gx, gv, grads = neuron.charge_backward(gh, s.x, s.v, s.due, p)
        add(grads)
        grad_x_seq[t] = gx if gx_emit is None else gx + gx_emit
    if reset_delay and neuron.reset_mode not in ("late", "again") and not constant_start:
        gv, go_start = through_reset(gv, v0, neuron.fire(v0, p, spike))
        gv = gv if go_start is None else gv + through_fire(go_start, v0)
    grad_v0 = torch.empty_like(v0).copy_(gv) if given else None
    return grad_x_seq, grad_v0, grad_p


def start(v0: Tensor | None, x_seq: Tensor) -> Tensor:
    """Return the initial potential, zero if there is none."""
    if v0 is not None:
        return v0
    return torch.zeros(x_seq.shape[1:], dtype=compute_dtype(x_seq.dtype), device=x_seq.device)


def _forward_spike(surrogate: Surrogate) -> Spike:
    return surrogate.step if surrogate.spiking else surrogate.primitive
