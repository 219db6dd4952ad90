"""SpikingJelly's face of the neurons: ``tau``, ``v_threshold``, ``step_mode`` and what belongs to them.

``v`` follows SpikingJelly's convention: it is the potential *after* the reset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .. import checks
from ..checks import Numbers
from ..neurons import activation as _activation
from ..neurons import lifb as _lifb
from ..neurons import soft_reset_mpr as _soft_reset_mpr
from ..neurons import vsn as _vsn
from ..surrogate import StraightThrough
from ._base import LeakyNode
from ._compat import native_positions

__all__ = ["LIFBNode", "SoftResetMPRNode", "VSNNode"]


class VSNNode(LeakyNode):
    r"""Variable spiking neuron: emits its own input whenever an integrate-and-fire event opens the gate.

    .. math::

        H[t] &= (1 - 1/\tau)\,V[t-1] + k\,X[t], \quad k = 1/\tau \text{ with decay\_input, else } 1 \\
        S[t] &= \Theta(H[t] - V_{threshold}) \\
        Y[t] &= \mathrm{act}(X[t]\,S[t]) \\
        V[t] &= (1 - S[t])\,H[t]

    The arguments of ``LIFNode`` come first, in its order and with its meaning (``backend`` stands before
    ``store_v_seq`` where the installed SpikingJelly has it); only what differs is listed here.

    Parameters
    ----------
    tau : float or Tensor, default 2.0
        Membrane time constant in steps, at least 1; one value, or one per channel or neuron (any shape
        that broadcasts to one time step of the input).
    decay_input : bool, default True
        Charge with ``x / tau`` instead of ``x``.  The emitted spike carries the undivided `x` either way
        (inferred).  The paper's equation is ``decay_input=False``.
    v_threshold : float or Tensor, default 1.0
        Firing threshold, shapes as for `tau`; an event needs ``H >= v_threshold``.
    v_reset : float, default 0.0
        A VSN resets to zero by definition; anything else is refused.
    surrogate_function : callable, optional
        Surrogate gradient; SpikingJelly's ``Sigmoid()`` if left out.  SpikingJelly's ``Sigmoid``, ``ATan``,
        ``PiecewiseQuadratic`` and ``Rect`` and every `snn_ext.surrogate` run in the fused operator; any
        other callable runs step by step.
    activation : {"identity", "relu", "tanh", "gelu"} or callable, default "identity"
        Elementwise activation of the graded spike, with ``act(0) == 0`` (checked).
    learn_tau : bool, default False
        Learn the time constant through ``1 / tau = sigmoid(w)``, as ``ParametricLIFNode`` does; the
        parameter is ``w``.  Needs ``tau > 1``.
    learn_threshold : bool, default False
        Make ``v_threshold`` a parameter.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Notes
    -----
    ``v`` is float32 for float16 and bfloat16 input, else of the input's dtype.

    The backward pass recomputes the potentials from the input, so change no input in place after its step:
    ``x = x + lif(x)``, not ``x += lif(x)``, which is refused.  What is emitted may be changed in place.

    Source: arXiv:2311.09267; `decay_input` and the parametrisation of `tau` are SpikingJelly's.

    Examples
    --------
    >>> import torch
    >>> vsn = VSNNode(tau=2.0, decay_input=False, v_threshold=0.9, step_mode="m")
    >>> x_seq = torch.tensor([[0.4], [0.8], [0.3]])
    >>> [round(y, 2) for y in vsn(x_seq).flatten().tolist()], round(vsn.v.item(), 2)
    ([0.0, 0.8, 0.0], 0.3)
    """

    not_in_nir = "graded spikes"
    nir_remedy = "leave it out of what is exported"

    @native_positions
    def __init__(
        self,
        tau: Numbers = 2.0,
        decay_input: bool = True,
        v_threshold: Numbers = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: Callable[[Tensor], Tensor] | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        activation: str | Callable[[Tensor], Tensor] = "identity",
        learn_tau: bool = False,
        learn_threshold: bool = False,
        **native: Any,
    ) -> None:
        if v_reset is None or checks.number("v_reset", v_reset) != 0:
            raise ValueError(
                f"v_reset={v_reset}: a VSN resets to zero by definition; leave it out, or use LIFNode for "
                "another reset"
            )
        activation = _activation.resolve(activation)
        super().__init__(
            tau,
            decay_input,
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            store_v_seq,
            learn_tau,
            learn_threshold,
            native,
        )
        self.activation = activation

    def _equations(self) -> _vsn.VSN:
        return _vsn.VSN(self.activation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation!r}"


class LIFBNode(LeakyNode):
    r"""Leaky integrate-and-fire-or-burst neuron: rests, spikes, or bursts.

    .. math::

        H[t] &= V[t-1] + (k\,X[t] - (V[t-1] - V_{reset})/\tau) \\
        S[t] &= \Theta(H[t] - V_{threshold}) \\
        B[t] &= \Theta(H[t] - V_{burst}) \\
        Y[t] &= S[t] + (\kappa - 1)\,B[t]

    with :math:`k = 1/\tau` with `decay_input`, else 1.  The reset is that of ``LIFNode``: hard to `v_reset`,
    or with ``v_reset=None`` soft, subtracting `v_threshold`.  With a burst intensity :math:`\kappa = 1` the
    neuron is ``LIFNode``.

    The arguments of ``LIFNode`` come first, in its order and with its meaning and defaults (``backend``
    stands before ``store_v_seq`` where the installed SpikingJelly has it); only what differs is listed here.

    Parameters
    ----------
    tau, v_threshold : float or Tensor
        One value, or one per channel or neuron (any shape that broadcasts to one time step of the input).
    v_reset : float or None, default 0.0
        Spikes and bursts reset alike (inferred).
    surrogate_function : callable, optional
        Used at both thresholds; SpikingJelly's ``Sigmoid()`` if left out; as in `VSNNode`.
    burst_threshold : float or Tensor, optional
        Potential at or above which an event is a burst; above `v_threshold`.  Left out, as far above
        `v_threshold` as that is from zero: twice `v_threshold`, where it is positive (inferred).
    burst_intensity : float or Tensor, default 2.0
        What a burst emits, :math:`\kappa \ge 1`.
    learn_tau, learn_threshold : bool, default False
        As in `VSNNode`.
    learn_burst_threshold, learn_burst_intensity : bool, default False
        Learn them.  Training keeps the burst threshold above the threshold and the intensity above 1:
        see `snn_ext.neurons.lifb.Burst`, the submodule ``burst`` that holds both.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Notes
    -----
    ``v`` is float32 for float16 and bfloat16 input, else of the input's dtype.
    `snn_ext.spikingjelly.observe` counts the three modes, `decouple` gives the equivalent pair of
    ``LIFNode``.

    The backward pass recomputes the potentials from the input, so change no input in place after its step:
    ``x = x + lif(x)``, not ``x += lif(x)``, which is refused.  What is emitted may be changed in place.

    Source: arXiv:2301.12356; see `snn_ext.neurons.lifb` for what is inferred.

    Examples
    --------
    >>> import torch
    >>> lifb = LIFBNode(decay_input=False, burst_threshold=2.0, burst_intensity=3.0, step_mode="m")
    >>> lifb(torch.tensor([[0.5], [1.0], [3.0]])).flatten().tolist()
    [0.0, 1.0, 3.0]
    """

    not_in_nir = "two thresholds on one potential"

    @native_positions
    def __init__(
        self,
        tau: Numbers = 2.0,
        decay_input: bool = True,
        v_threshold: Numbers = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: Callable[[Tensor], Tensor] | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        burst_threshold: Numbers | None = None,
        burst_intensity: Numbers = 2.0,
        learn_tau: bool = False,
        learn_threshold: bool = False,
        learn_burst_threshold: bool = False,
        learn_burst_intensity: bool = False,
        **native: Any,
    ) -> None:
        v_threshold = checks.number_or_tensor("v_threshold", v_threshold)
        burst = _lifb.Burst(
            v_threshold,
            burst_threshold,
            burst_intensity,
            learn_burst_threshold,
            learn_burst_intensity,
            "v_threshold",
        )
        super().__init__(
            tau,
            decay_input,
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            store_v_seq,
            learn_tau,
            learn_threshold,
            native,
        )
        self.burst = burst

    @property
    def burst_threshold(self) -> Tensor:
        """The potential at or above which an event is a burst."""
        return self.burst.above(self.v_threshold)

    @property
    def burst_intensity(self) -> Tensor:
        """What a burst emits."""
        return self.burst.intensity

    def decouple(self) -> nn.Module:
        """Return the equivalent pair of native LIF neurons, in the same state: a `DecoupledLIFBNode`."""
        from .decoupling import DecoupledLIFBNode

        return DecoupledLIFBNode(self)

    def _equations(self) -> _lifb.LIFB:
        return _lifb.LIFB(self._reset_mode, self.v_reset or 0.0)

    def _parameters_of_its_own(self) -> dict[str, float | Tensor]:
        burst = self.burst
        return {"burst_threshold": burst.above(self.v_threshold), "burst_intensity": burst.intensity}


class SoftResetMPRNode(LeakyNode):
    r"""Soft-reset neuron with a membrane potential rectifier (MPR): firing is rounding.

    .. math::

        H[t] &= (1 - 1/\tau)\,V[t-1] + X[t] \\
        S[t] &= \Theta(\varphi((H[t] - V_{threshold}) / A)) \\
        Y[t] &= A\,S[t] \\
        V[t] &= H[t] - A\,S[t]

    The rectifier :math:`\varphi` (`snn_ext.neurons.soft_reset_mpr`) pulls the potential towards 0 or
    :math:`A` without ever changing a spike: its effect is a gradient.  The rounding error is carried on.

    The arguments of ``LIFNode`` come first, in its order (``backend`` stands before ``store_v_seq`` where
    the installed SpikingJelly has it), with the defaults of the authors' code; only what differs is listed
    here.  The paper's ablation is: ``v_reset=0.0, mpr=False`` (vanilla), ``mpr=False`` (soft reset alone),
    and the default (both).

    Parameters
    ----------
    tau : float or Tensor, default inf
        Membrane time constant in steps; the authors' code has no leak.
    decay_input : bool, default False
        ``True`` divides the input by `tau`, which must then be finite.
    v_threshold : float or Tensor, default 0.5
        Firing level.
    v_reset : float or None, default None
        ``None``: soft reset, subtracting `amplitude` (``LIFNode`` subtracts the threshold).  A number: hard.
    surrogate_function : callable, optional
        Surrogate on the (rectified) distance to the firing level in units of the amplitude.  Left out, it
        is that of the authors' code, `snn_ext.surrogate.StraightThrough`, which fires strictly above.
    amplitude : float or Tensor, default 1.0
        Spike amplitude :math:`A` > 0: what is emitted, and what a soft reset subtracts.
    mpr : bool, default True
        Whether the rectifier is at work.
    learn_tau, learn_threshold : bool, default False
        As in `VSNNode`; a learned `tau` starts finite.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.

    Notes
    -----
    `snn_ext.spikingjelly.observe` reports the quantisation error.  To use the rectifier's gradient on another
    neuron take ``surrogate_function=snn_ext.surrogate.MPR()``.

    The backward pass recomputes the potentials from the input, so change no input in place after its step:
    ``x = x + lif(x)``, not ``x += lif(x)``, which is refused.  What is emitted may be changed in place.

    Source: arXiv:2307.04356 and the authors' code; see `snn_ext.neurons.soft_reset_mpr` for what is inferred.

    Examples
    --------
    >>> import torch
    >>> node = SoftResetMPRNode(step_mode="m")
    >>> node(torch.tensor([[0.25], [0.5], [0.25]])).flatten().tolist(), node.v.item()
    ([0.0, 1.0, 0.0], 0.0)
    """

    default_surrogate = StraightThrough(strict=True)
    not_in_nir = "a soft reset"

    @native_positions
    def __init__(
        self,
        tau: Numbers = math.inf,
        decay_input: bool = False,
        v_threshold: Numbers = 0.5,
        v_reset: float | None = None,
        surrogate_function: Callable[[Tensor], Tensor] | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        amplitude: Numbers = 1.0,
        mpr: bool = True,
        learn_tau: bool = False,
        learn_threshold: bool = False,
        **native: Any,
    ) -> None:
        mpr = checks.flag("mpr", mpr)
        amplitude = checks.positive("amplitude", amplitude, "a spike carries something")
        super().__init__(
            tau,
            decay_input,
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            store_v_seq,
            learn_tau,
            learn_threshold,
            native,
        )
        self._hold("amplitude", amplitude, False)
        self.mpr = mpr

    def _equations(self) -> _soft_reset_mpr.SoftResetMPR:
        return _soft_reset_mpr.SoftResetMPR(self.mpr, self._reset_mode, self.v_reset or 0.0)

    def _parameters_of_its_own(self) -> dict[str, float | Tensor]:
        return {"amplitude": self.amplitude}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, amplitude={checks.brief(self.amplitude)}, mpr={self.mpr}"
