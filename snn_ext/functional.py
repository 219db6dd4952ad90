"""Neurons as functions of a whole input sequence, without any framework.

Each function checks and prepares its arguments, then calls the fused operator
``torch.ops.snn_ext.*``; what no operator can know (a callable surrogate or activation, a quantised
state, ``torch.func`` transforms, forward-mode differentiation) runs on the differentiable reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad

from . import checks
from .checks import Numbers
from .neurons import activation as _activation
from .neurons.leaky import Leaky
from .neurons.lifb import LIFB
from .neurons.soft_reset_mpr import SoftResetMPR
from .neurons.vsn import VSN
from .ops import operators, reference
from .ops.operators import decompositions
from .surrogate import ATan, StraightThrough, Surrogate, is_fused

__all__ = ["decompositions", "lifb", "soft_reset_mpr", "vsn"]

Parameter = float | Tensor


def vsn(
    x_seq: Tensor,
    v0: Tensor | None = None,
    *,
    decay: Numbers,
    gain: Numbers = 1.0,
    threshold: Numbers,
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
        Decay :math:`d` per step, in [0, 1] (a float is checked; a tensor is taken as it is).  Here and below,
        arrays and lists will do as well.
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
        the reset, which is then made at the next step (snnTorch's ``mem``).  The events are the same.  (The
        reset that is due to a `v0` without gradient is a constant.)
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
    return run(
        VSN(_activation.resolve(activation)),
        x_seq,
        v0,
        _given(decay=decay, gain=gain, threshold=threshold),
        **_options(surrogate, detach_reset, strict, reset_delay, state_quant, return_v_seq),
    )


def lifb(
    x_seq: Tensor,
    v0: Tensor | None = None,
    *,
    decay: Numbers,
    gain: Numbers = 1.0,
    threshold: Numbers,
    burst_threshold: Numbers,
    burst_intensity: Numbers,
    v_reset: float | None = 0.0,
    surrogate: Surrogate | Callable[[Tensor], Tensor] | None = None,
    detach_reset: bool = False,
    strict: bool | None = None,
    reset_delay: bool = False,
    state_quant: Callable[[Tensor], Tensor] | None = None,
    return_v_seq: bool = False,
) -> tuple[Tensor, ...]:
    r"""Leaky integrate-and-fire-or-burst over a sequence: rest, a regular spike, or a burst.

    .. math::

        h_t = d\,v_{t-1} + k\,x_t, \quad o_t = H(h_t - \theta), \quad b_t = H(h_t - \theta_b), \quad
        y_t = o_t + (\kappa - 1)\,b_t, \quad v_t = \mathrm{reset}(h_t, o_t)

    All arguments not listed here are those of `vsn`.

    Parameters
    ----------
    decay, gain, threshold : float or Tensor
        Decay :math:`d`, input gain :math:`k` and firing threshold :math:`\theta`.
    burst_threshold : float or Tensor
        Burst threshold :math:`\theta_b`, above `threshold`.
    burst_intensity : float or Tensor
        Burst intensity :math:`\kappa`, at least 1; with 1 the neuron is a plain LIF.
    v_reset : float or None, default 0.0
        Where an event resets the potential, and where it leaks to: the charge is then
        :math:`d\,(v - v_\mathrm{reset}) + v_\mathrm{reset} + k\,x`.  ``None``: soft reset, an event of either
        kind subtracts `threshold`, before the decay.

    Returns
    -------
    y_seq, v, v_seq
        As from `vsn`; `y_seq` holds 0, 1 and `burst_intensity`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.  The values of tensors are checked on the CPU only,
        and not in compiled graphs.

    Notes
    -----
    Gradients flow to `x_seq`, `v0` and every parameter; the one to `burst_intensity` is exact (the number of
    bursts), the others use the surrogate, the same for both thresholds.

    Source: arXiv:2301.12356 (three modes, decoupling); the output levels, the burst threshold and the resets
    are inferred.

    Examples
    --------
    >>> import torch
    >>> x_seq = torch.tensor([[0.5], [1.0], [2.5]])
    >>> y_seq, v = lifb(x_seq, decay=0.5, threshold=1.0, burst_threshold=2.0, burst_intensity=3.0)
    >>> y_seq.flatten().tolist()
    [0.0, 1.0, 3.0]
    """
    p = _given(
        decay=decay,
        gain=gain,
        threshold=threshold,
        burst_threshold=burst_threshold,
        burst_intensity=burst_intensity,
    )
    check_above("burst_threshold", p["burst_threshold"], "threshold", p["threshold"], x_seq)
    check_between(
        "burst_intensity",
        p["burst_intensity"],
        x_seq,
        lambda kappa: (kappa >= 1) * (kappa < torch.inf) * 1,
        "at least 1 and finite: a burst is at least one spike",
    )
    return run(
        LIFB("hard" if v_reset is not None else "soft", check_v_reset("v_reset", v_reset)),
        x_seq,
        v0,
        p,
        **_options(surrogate, detach_reset, strict, reset_delay, state_quant, return_v_seq),
    )


def soft_reset_mpr(
    x_seq: Tensor,
    v0: Tensor | None = None,
    *,
    decay: Numbers = 1.0,
    gain: Numbers = 1.0,
    threshold: Numbers = 0.5,
    amplitude: Numbers = 1.0,
    v_reset: float | None = None,
    mpr: bool = True,
    surrogate: Surrogate | Callable[[Tensor], Tensor] | None = None,
    detach_reset: bool = False,
    strict: bool | None = None,
    reset_delay: bool = False,
    state_quant: Callable[[Tensor], Tensor] | None = None,
    return_v_seq: bool = False,
) -> tuple[Tensor, ...]:
    r"""Soft reset with a membrane potential rectifier (MPR) over a sequence: firing is rounding.

    .. math::

        h_t = d\,v_{t-1} + k\,x_t, \quad o_t = H(\varphi((h_t - \theta) / A)), \quad
        y_t = A\,o_t, \quad v_t = h_t - A\,o_t

    The rectifier :math:`\varphi` (see `snn_ext.neurons.soft_reset_mpr`) never changes a spike; its effect
    is a gradient.  The paper's ablation is: ``v_reset=0.0, mpr=False`` (vanilla), ``mpr=False`` (soft reset
    alone), and the default (both).  All arguments not listed here are those of `vsn`.

    Parameters
    ----------
    decay : float or Tensor, default 1.0
        Decay :math:`d`; the authors' code has no leak.
    threshold : float or Tensor, default 0.5
        Firing level :math:`\theta`.
    amplitude : float or Tensor, default 1.0
        Spike amplitude :math:`A` > 0: what is emitted, and what a soft reset subtracts.
    v_reset : float or None, default None
        ``None``: soft reset.  A number: hard reset to it, and leak towards it, as in `lifb`.
    mpr : bool, default True
        Whether the rectifier is at work.
    surrogate : Surrogate or callable, default ``StraightThrough(strict=True)``
        Applied to the (rectified) distance to the firing level in units of the amplitude.  The default is the
        authors': straight-through on the rectified potential clamped to [0, A], firing strictly above.

    Returns
    -------
    y_seq, v, v_seq
        As from `vsn`; `y_seq` holds 0 and `amplitude`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.  The values of tensors are checked on the CPU only,
        and not in compiled graphs.

    Notes
    -----
    No gradient is ever NaN or infinite for finite potentials, at 0, at the amplitude or far outside.

    Source: arXiv:2307.04356 and the authors' code; the general :math:`\theta`, :math:`A` and :math:`d` are
    inferred.

    Examples
    --------
    >>> import torch
    >>> y_seq, v = soft_reset_mpr(torch.tensor([[0.4], [0.4], [0.4]]))
    >>> y_seq.flatten().tolist(), round(v.item(), 4)
    ([0.0, 1.0, 0.0], 0.2)
    """
    p = _given(decay=decay, gain=gain, threshold=threshold, amplitude=amplitude)
    check_between(
        "amplitude",
        p["amplitude"],
        x_seq,
        lambda a: (a > 0) * (a < torch.inf) * 1,
        "positive and finite; a spike carries something",
    )
    return run(
        SoftResetMPR(mpr, "hard" if v_reset is not None else "soft", check_v_reset("v_reset", v_reset)),
        x_seq,
        v0,
        p,
        **_options(
            StraightThrough(strict=True) if surrogate is None else surrogate,
            detach_reset,
            strict,
            reset_delay,
            state_quant,
            return_v_seq,
        ),
    )


def _given(**parameters: Any) -> dict[str, Parameter]:
    """Return the parameters of a neuron as numbers and floating-point tensors."""
    return {name: checks.given(name, value) for name, value in parameters.items()}


def _options(
    surrogate: Any, detach_reset: Any, strict: Any, reset_delay: Any, state_quant: Any, return_v_seq: Any
) -> dict[str, Any]:
    """Return what all neurons have in common, checked."""
    if surrogate is not None and not isinstance(surrogate, Surrogate):
        checks.spike_function("surrogate", surrogate, probe=True)
    if state_quant is not None and (not callable(state_quant) or isinstance(state_quant, type)):
        raise TypeError(f"state_quant must be callable or None, got {type(state_quant).__name__}")
    return {
        "surrogate": surrogate,
        "detach_reset": checks.flag("detach_reset", detach_reset),
        "strict": None if strict is None else checks.flag("strict", strict),
        "reset_delay": checks.flag("reset_delay", reset_delay),
        "state_quant": state_quant,
        "return_v_seq": checks.flag("return_v_seq", return_v_seq),
    }


def run(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor | None,
    parameters: Mapping[str, Parameter],
    *,
    surrogate: Surrogate | Callable[[Tensor], Tensor] | None,
    detach_reset: bool = False,
    strict: bool | None = None,
    reset_delay: bool = False,
    state_quant: Callable[[Tensor], Tensor] | None = None,
    return_v_seq: bool = False,
    power: float = 0.0,
    names: Mapping[str, str] | None = None,
    observer: Any = None,
    implementation: str | None = None,
    single: bool = False,
) -> tuple[Tensor, ...]:
    """Run `neuron`, checked and prepared: what the functions above and both faces call.

    With `single`, `x_seq` and what is emitted are one step, without the dimension of time.  With a `power` of
    at least 1, what is returned ends with the spikes that each neuron has sent, summed over steps
    (`Leaky.transmitted`).

    `names` says what a face calls the arguments, for errors; an `observer` (`snn_ext.observe`) is shown the
    steps.  An `implementation` is what eager calls run on instead of the fastest (`snn_ext.ops.dispatch`).
    """

    def named(name: str) -> str:
        return name if names is None else names.get(name, name)

    x_seq = given = check_input(named("x_seq"), x_seq, single)
    if single:
        x_seq = x_seq.unsqueeze(0)
    check_decay(named("decay"), parameters["decay"])
    own = operators.plain(x_seq) and not torch._C._are_functorch_transforms_active()
    p = {name: as_parameter(named(name), parameters[name], x_seq, own) for name in neuron.parameters}
    start = _initial_potential(named("v0"), v0, x_seq)
    constant = v0 is None or not (v0.requires_grad or _transformed(v0))
    surrogate = _surrogate(named("surrogate"), surrogate, strict)
    if state_quant is not None:
        state_quant = functools.partial(_quantised, state_quant)
    when = {"detach_reset": detach_reset, "reset_delay": reset_delay, "constant_start": constant}
    if observer is not None:
        seen_from = reference.start(start, x_seq)
        observer.see(neuron, x_seq, seen_from, p, surrogate, state_quant=state_quant, **when)
    known = is_fused(surrogate) and state_quant is None and isinstance(getattr(neuron, "activation", ""), str)
    if known and not _transformed(x_seq, start, *p.values()):
        assert isinstance(surrogate, Surrogate)
        y_seq, v, v_seq, sent = operators.run(
            neuron,
            given,
            start,
            p,
            surrogate,
            **when,
            return_v_seq=return_v_seq,
            power=power,
            wanted=implementation,
            single=single,
        )
        found = (y_seq, v, v_seq) if return_v_seq and v_seq is not None else (y_seq, v)
        return found if sent is None else (*found, sent)
    if implementation not in (None, "reference") and not known:
        raise NotImplementedError(
            f"{implementation} has no kernel for a {named('surrogate')} or activation that is a callable of "
            "your own, nor for a quantised state; use a named one, or backend='torch'"
        )
    start = reference.start(start, x_seq)
    kept = x_seq.clone()  # what autograd saves of it is nobody's who could change it in place
    steps = reference.unroll(
        neuron.in_precision(x_seq.dtype), kept, start, p, surrogate, **when, state_quant=state_quant
    )

    def count(step: reference.Step) -> Tensor:
        return neuron.transmitted(step.h, step.o, p, surrogate, power)

    y_seq, *rest = _stack(steps, x_seq.dtype, reset_delay, return_v_seq, count if power else None)
    return operators.only_step(y_seq) if single else y_seq, *rest


def _quantised(state_quant: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Return a potential as `state_quant` has it, or raise: what it leaves is the state of the next step."""
    found = state_quant(h)
    if not isinstance(found, Tensor) or found.shape != h.shape:
        raise TypeError(
            f"state_quant must return a potential of the shape that it is given, {tuple(h.shape)}, but "
            f"returned {checks.shown(found)}"
        )
    return found


def _stack(
    steps: Iterable[reference.Step],
    dtype: torch.dtype,
    reset_delay: bool,
    return_v_seq: bool,
    sent: Callable[[reference.Step], Tensor] | None,
) -> tuple[Tensor, ...]:
    ys, vs, count = [], [], None
    for s in steps:
        ys.append(s.y.to(dtype))
        vs.append(s.h if reset_delay else s.v_next)
        if sent is not None:
            count = sent(s) if count is None else count + sent(s)
    found = (torch.stack(ys), vs[-1], torch.stack(vs)) if return_v_seq else (torch.stack(ys), vs[-1])
    return found if count is None else (*found, count)


def check_input(name: str, x_seq: Tensor, single: bool = False) -> Tensor:
    """Return a sequence of at least one step, or one step, as floating point, or raise."""
    if not isinstance(x_seq, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x_seq).__name__}")
    x_seq = checks.floating(name, x_seq)
    if not single and (x_seq.dim() == 0 or x_seq.shape[0] == 0):
        raise ValueError(
            f"{name} has shape {tuple(x_seq.shape)}, but needs at least one time step: (T, ...) with T >= 1"
        )
    return x_seq


def check_decay(name: str, decay: Parameter) -> None:
    """Raise if `decay` is a number outside [0, 1]."""
    if isinstance(decay, (int, float)) and not 0 <= decay <= 1:
        raise ValueError(f"{name}={decay} must lie in [0, 1]")


def check_above(name: str, value: Parameter, bound_name: str, bound: Parameter, x_seq: Tensor) -> None:
    """Raise if two values stand in the wrong order, where that can be seen (`_visible`)."""
    if _visible(value, x_seq) and _visible(bound, x_seq) and _any(value <= bound):
        raise ValueError(
            f"{name}={checks.brief(value)} must be above {bound_name}={checks.brief(bound)}; raise it"
        )


def check_between(name: str, value: Parameter, x_seq: Tensor, fits: Callable[[Any], Any], why: str) -> None:
    """Raise unless `fits` holds for all of a value, where it can be seen (`_visible`); says `why`."""
    if _visible(value, x_seq) and _any(1 - fits(value)):
        raise ValueError(f"{name}={checks.brief(value)} must be {why}")


def _any(wrong: bool | int | Tensor) -> bool:
    return bool(wrong.any()) if isinstance(wrong, Tensor) else bool(wrong)


def _visible(value: Any, x_seq: Any) -> bool:
    """Whether a value can be looked at for free: a number, or a fitting, concrete tensor on the CPU."""
    if not isinstance(value, Tensor):
        return isinstance(value, (int, float))
    if torch.compiler.is_compiling() or value.device.type != "cpu" or not isinstance(x_seq, Tensor):
        return False
    if type(value) is FakeTensor or not value.is_floating_point() or _transformed(value):
        return False
    return _broadcasts(value, x_seq.shape[1:])


def _broadcasts(value: Tensor, step: torch.Size) -> bool:
    """Whether `value` broadcasts to one time step; dimensions of one that the step lacks do not count."""
    more = max(value.dim() - len(step), 0)
    return all(size == 1 for size in value.shape[:more]) and all(
        a in (1, b) for a, b in zip(value.shape[::-1], step[::-1], strict=False)
    )


def check_v_reset(name: str, v_reset: Any) -> float:
    """Return where a hard reset leads, or 0.0 for a soft one; raise unless it is a finite number or None."""
    if v_reset is None:
        return 0.0
    v_reset = checks.number(name, v_reset, " or None")
    if not -torch.inf < v_reset < torch.inf:
        raise ValueError(f"{name}={v_reset} must be finite, or None for a soft reset")
    return v_reset


@functools.lru_cache(maxsize=256)
def _constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((), value, dtype=dtype, device=device)


def as_parameter(name: str, value: Parameter, x_seq: Tensor, shared: bool = False) -> Tensor:
    """Return a parameter as a tensor in the dtype of the state, checked against `x_seq`.

    With `shared`, equal numbers give one and the same tensor, which nobody may write to.
    """
    dtype = reference.compute_dtype(x_seq.dtype)
    if isinstance(value, (int, float)):
        if value != value:  # math.isnan would break a compiled graph
            raise ValueError(f"{name} is NaN; give a number")
        if shared:
            return _constant(float(value), dtype, x_seq.device)
        return torch.full((), value, dtype=dtype, device=x_seq.device)
    if not isinstance(value, Tensor):
        return as_parameter(name, checks.given(name, value), x_seq, shared)
    if value.dtype != dtype:
        value = checks.floating(name, value).to(dtype)
    return fitting(name, value, x_seq)


def _initial_potential(name: str, v0: Tensor | None, x_seq: Tensor) -> Tensor | None:
    if v0 is None:
        return None
    dtype, shape = reference.compute_dtype(x_seq.dtype), x_seq.shape[1:]
    if not isinstance(v0, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or None, got {type(v0).__name__}")
    if v0.dtype != dtype or v0.shape != shape or v0.device != x_seq.device or v0.layout is not torch.strided:
        v0 = fitting(name, checks.floating(name, v0), x_seq).to(dtype).expand(shape)
    if not torch.compiler.is_compiling() and v0.is_inference() and not torch.is_inference_mode_enabled():
        v0 = v0.clone()  # a state left over from torch.inference_mode cannot be kept for a backward pass
    return v0


def fitting(name: str, value: Tensor, x_seq: Tensor) -> Tensor:
    """Return `value`, if it is on the device of `x_seq` and broadcasts to one of its time steps, or raise.

    A batch dimension of one, as in (1, N), is dropped where the input has none.
    """
    if value.device != x_seq.device:
        raise ValueError(
            f"{name} is on {value.device} but the input is on {x_seq.device}; move one with .to(device)"
        )
    if value.dim() == 0:
        return value
    step = x_seq.shape[1:]
    if _broadcasts(value, step):
        more = value.dim() - len(step)
        return value.reshape(value.shape[more:]) if more > 0 else value
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


def _transformed(*tensors: Tensor | None) -> bool:
    """Whether ``torch.func`` or forward-mode differentiation is at work, which no operator supports."""
    if torch.compiler.is_compiling():
        return forward_ad._current_level >= 0
    if torch._C._are_functorch_transforms_active():
        return True
    return forward_ad._current_level >= 0 and any(
        tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )
