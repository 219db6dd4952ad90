"""Neurons as functions of a whole input sequence, without any framework.

Each function checks and prepares its arguments, then calls the fused operator
``torch.ops.snn_ext.*``; what no operator can know (a callable surrogate or activation, a quantised
state, ``torch.func`` transforms, forward-mode differentiation) runs on the differentiable reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import checks, ops  # noqa: F401  (registers the operators)
from .neurons import activation as _activation
from .neurons.vsn import VSN
from .ops import reference
from .surrogate import ATan, Surrogate, is_fused

__all__ = ["vsn"]

Parameter = float | Tensor


def vsn(
    x_seq: Tensor,
    v0: Tensor | None = None,
    *,
    decay: Parameter,
    gain: Parameter = 1.0,
    threshold: Parameter,
    activation: str | Callable[[Tensor], Tensor] = "identity",
    surrogate: Surrogate | Callable[[Tensor], Tensor] | None = None,
    detach_reset: bool = False,
    strict: bool | None = None,
    reset_delay: bool = False,
    state_quant: Callable[[Tensor], Tensor] | None = None,
    return_v_seq: bool = False,
) -> tuple[Tensor, ...]:
    r"""Variable spiking neuron over a sequence: graded spikes, gated by integrate-and-fire events.

    .. math::

        h_t = d\,v_{t-1} + k\,x_t, \quad o_t = H(h_t - \theta), \quad
        y_t = \mathrm{act}(x_t\,o_t), \quad v_t = (1 - o_t)\,h_t

    Parameters
    ----------
    x_seq : Tensor, shape (T, *S), floating point
        Input current, time first, ``T >= 1``.
    v0 : Tensor, broadcastable to S, optional
        Initial potential; zero if left out.
    decay : float or Tensor
        Decay :math:`d` per step, in [0, 1] (a float is checked; a tensor is taken as it is).
    gain : float or Tensor, default 1.0
        Input gain :math:`k` of the charge; the emitted spike carries the undivided input (inferred).
    threshold : float or Tensor
        Firing threshold :math:`\theta`.  (The values of tensors are not checked: a NaN never fires.)
    activation : {"identity", "relu", "tanh", "gelu"} or callable, default "identity"
        Elementwise, with ``act(0) == 0`` (checked).  With ``"relu"`` a closed gate passes no gradient,
        since ``relu'(0) = 0``: a neuron that never fires is not taught to.
    surrogate : Surrogate or callable, default ``ATan()``
        A member of `snn_ext.surrogate`, or any differentiable callable from the distance to threshold
        to events.
    detach_reset : bool, default False
        Keep the gradient from flowing through the event into the reset.
    strict : bool, optional
        Fire at ``h > threshold`` instead of ``h >= threshold``; by default as the surrogate says,
        which is ``False`` unless set.  A callable surrogate decides by itself, so leave it out there.
    reset_delay : bool, default False
        ``False``: `v0` and the potentials returned are those after the reset.  ``True``: those before
        the reset, which is then made at the next step (snnTorch's ``mem``).  The events are the same.
    state_quant : callable, optional
        Applied to the potential after charging, at every step (snnTorch's ``state_quant``).
    return_v_seq : bool, default False
        Also return the potentials of all steps.

    Returns
    -------
    y_seq : Tensor, shape (T, *S), dtype of `x_seq`
        Graded spikes.
    v : Tensor, shape S
        Final potential; float32 for float16 and bfloat16 input, else the dtype of `x_seq`.
    v_seq : Tensor, shape (T, *S)
        Potentials of all steps; only with ``return_v_seq=True``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy; nothing has been changed.

    Notes
    -----
    `decay`, `gain` and `threshold` are scalars, or tensors that broadcast against the trailing
    dimensions of one time step: shape ``(C, 1, 1)`` is one value per channel of ``(N, C, H, W)``.
    Gradients flow to `x_seq`, `v0` and each of them.

    Source: arXiv:2311.09267 (equations); `gain` and soft surrogates are ours.

    Examples
    --------
    >>> import torch
    >>> x_seq = torch.tensor([[0.4], [0.8], [0.3]])
    >>> y_seq, v = vsn(x_seq, decay=0.5, threshold=0.9)
    >>> y_seq.flatten().tolist()[0], round(y_seq.flatten().tolist()[1], 4), round(v.item(), 4)
    (0.0, 0.8, 0.3)
    """
    return run_vsn(
        x_seq,
        v0,
        decay=decay,
        gain=gain,
        threshold=threshold,
        activation=_activation.resolve(activation),
        surrogate=surrogate,
        detach_reset=detach_reset,
        strict=strict,
        reset_delay=reset_delay,
        state_quant=state_quant,
        return_v_seq=return_v_seq,
    )


def run_vsn(
    x_seq: Tensor,
    v0: Tensor | None,
    *,
    decay: Parameter,
    gain: Parameter = 1.0,
    threshold: Parameter,
    activation: str | Callable[[Tensor], Tensor],
    surrogate: Surrogate | Callable[[Tensor], Tensor] | None,
    detach_reset: bool = False,
    strict: bool | None = None,
    reset_delay: bool = False,
    state_quant: Callable[[Tensor], Tensor] | None = None,
    return_v_seq: bool = False,
    names: Mapping[str, str] | None = None,
) -> tuple[Tensor, ...]:
    """Run `vsn` for a face: with an activation that is resolved already, and the face's `names` for
    the arguments in errors."""

    def named(name: str) -> str:
        return name if names is None else names.get(name, name)

    check_input(named("x_seq"), x_seq)
    check_decay(named("decay"), decay)
    p = {
        "decay": as_parameter(named("decay"), decay, x_seq),
        "gain": as_parameter(named("gain"), gain, x_seq),
        "threshold": as_parameter(named("threshold"), threshold, x_seq),
    }
    v0 = _initial_potential(named("v0"), v0, x_seq)
    surrogate = _surrogate(named("surrogate"), surrogate, strict)
    known = isinstance(activation, str) and is_fused(surrogate) and state_quant is None
    if known and not _transformed(x_seq, v0, *p.values()):
        assert isinstance(surrogate, Surrogate)
        y_seq, v, v_seq = torch.ops.snn_ext.vsn(
            x_seq,
            v0,
            *p.values(),
            activation,
            surrogate.name,
            surrogate.scale,
            surrogate.spiking,
            surrogate.strict,
            detach_reset,
            reset_delay,
            return_v_seq,
        )
        return (y_seq, v, v_seq) if return_v_seq else (y_seq, v)
    steps = reference.unroll(
        VSN(activation),
        x_seq,
        v0,
        p,
        surrogate,
        detach_reset=detach_reset,
        reset_delay=reset_delay,
        state_quant=state_quant,
    )
    return _stack(steps, x_seq.dtype, reset_delay, return_v_seq)


def _stack(
    steps: Iterable[reference.Step], dtype: torch.dtype, reset_delay: bool, return_v_seq: bool
) -> tuple[Tensor, ...]:
    ys, vs = [], []
    for s in steps:
        ys.append(s.y.to(dtype))
        vs.append(s.h if reset_delay else s.v_next)
    if return_v_seq:
        return torch.stack(ys), vs[-1], torch.stack(vs)
    return torch.stack(ys), vs[-1]


def check_input(name: str, x_seq: Tensor) -> None:
    """Raise unless `x_seq` is a floating-point sequence of at least one step."""
    if not isinstance(x_seq, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x_seq).__name__}")
    if not x_seq.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x_seq.dtype}; convert it with {name}.float()")
    if x_seq.dim() == 0 or x_seq.shape[0] == 0:
        raise ValueError(
            f"{name} has shape {tuple(x_seq.shape)}, but needs at least one time step: (T, ...) with T >= 1"
        )


def check_decay(name: str, decay: Parameter) -> None:
    """Raise if `decay` is a number outside [0, 1]."""
    if isinstance(decay, (int, float)) and not 0 <= decay <= 1:
        raise ValueError(f"{name}={decay} must lie in [0, 1]")


def as_parameter(name: str, value: Parameter, x_seq: Tensor) -> Tensor:
    """Return a parameter as a tensor in the dtype of the state, checked against `x_seq`."""
    dtype = reference.compute_dtype(x_seq.dtype)
    if isinstance(value, (int, float)):
        if value != value:  # math.isnan would break a compiled graph
            raise ValueError(f"{name} is NaN; give a number")
        return torch.full((), value, dtype=dtype, device=x_seq.device)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a number or a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {value.dtype}; convert it with .float()")
    check_fits(name, value, x_seq)
    return value.to(dtype)


def _initial_potential(name: str, v0: Tensor | None, x_seq: Tensor) -> Tensor:
    dtype, shape = reference.compute_dtype(x_seq.dtype), x_seq.shape[1:]
    if v0 is None:
        return torch.zeros(shape, dtype=dtype, device=x_seq.device)
    if not isinstance(v0, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or None, got {type(v0).__name__}")
    if not v0.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {v0.dtype}; convert it with .float()")
    check_fits(name, v0, x_seq)
    if not torch.compiler.is_compiling() and v0.is_inference() and not torch.is_inference_mode_enabled():
        v0 = v0.clone()  # a state left over from torch.inference_mode cannot be kept for a backward pass
    return v0.to(dtype).expand(shape)


def check_fits(name: str, value: Tensor, x_seq: Tensor) -> None:
    """Raise unless `value` is on the device of `x_seq` and broadcasts to one of its time steps."""
    if value.device != x_seq.device:
        raise ValueError(
            f"{name} is on {value.device} but the input is on {x_seq.device}; move one with .to(device)"
        )
    step = x_seq.shape[1:]
    fits = value.dim() <= len(step) and all(
        value.shape[-i] in (1, step[-i]) for i in range(1, value.dim() + 1)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, which does not broadcast to one time step of the input, "
            f"{tuple(step)}; give a scalar, or align it with the trailing dimensions "
            "(one value per channel of (N, C, H, W) has shape (C, 1, 1))"
        )


def _surrogate(
    name: str, surrogate: Surrogate | Callable[[Tensor], Tensor] | None, strict: bool | None
) -> Surrogate | Callable[[Tensor], Tensor]:
    if surrogate is None:
        surrogate = ATan()
    checks.spike_function(name, surrogate)
    if isinstance(surrogate, Surrogate):
        return surrogate if strict is None else surrogate.with_strict(strict)
    if strict is not None:
        raise ValueError(
            f"strict={strict} has no effect on a callable surrogate, which decides by itself; leave it out"
        )
    return surrogate


def _transformed(*tensors: Tensor) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work, which no operator supports."""
    if torch.compiler.is_compiling():
        return forward_ad._current_level >= 0
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )
