"""snnTorch's face of the neurons: ``beta``, ``mem``, ``init_hidden`` and all that belongs to them.

``mem`` follows snnTorch's convention: it is the potential *before* the reset, which is made at the
next call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch as snn
from torch import Tensor, nn

from .. import checkpoints, checks
from ..checks import Numbers
from ..neurons import activation as _activation
from ..neurons import lifb as _lifb
from ..neurons import soft_reset_mpr as _soft_reset_mpr
from ..neurons import vsn as _vsn
from ..surrogate import StraightThrough
from ._base import RESETS, Neuron

__all__ = ["LIFB", "VSN", "SoftResetMPR", "reset"]


class VSN(Neuron):
    r"""Variable spiking neuron: emits its own input whenever an integrate-and-fire event opens the gate.

    .. math::

        U[t] &= \beta\,(1 - R[t])\,U[t-1] + I[t] \\
        O[t] &= H(U[t] - U_\mathrm{thr}) \\
        Y[t] &= \mathrm{act}(I[t]\,O[t])

    where :math:`R[t] = O[t-1]`: the potential is reset to zero one step after an event.

    The arguments of ``snn.Leaky`` come first, in its order and with its meaning; only what differs is
    listed here.

    Parameters
    ----------
    beta : float or Tensor
        Decay of the potential per step, in [0, 1]; one value, or one per channel or neuron (any shape
        that broadcasts to the input).  Clamped to [0, 1] in the forward pass when it is learned.
    threshold : float or Tensor, default 1.0
        Firing threshold; shapes as for `beta`.  An event needs ``mem > threshold``.
    spike_grad : callable, optional
        Surrogate gradient; ``atan()`` if left out.  snnTorch's ``atan``, ``fast_sigmoid`` and ``sigmoid``
        and every `snn_ext.surrogate` run in the fused operator and are stored as the (picklable)
        `snn_ext.surrogate` object; any other callable runs step by step.
    inhibition : bool, default False
        Only the neuron with the highest potential along dimension 1 emits.
    reset_mechanism : {"zero"}
        A VSN resets to zero by definition; anything else is refused.
    graded_spikes_factor : float or Tensor, default 1.0
        Multiplies what is emitted.
    reset_delay : bool, default True
        ``False``: reset within the step, not detached, as in ``snn.Leaky``; `mem` is then the potential
        after the reset.
    activation : {"identity", "relu", "tanh", "gelu"} or callable, default "identity"
        Elementwise activation of the graded spike, with ``act(0) == 0`` (checked).

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy; no neuron has been registered then.

    Notes
    -----
    Inputs and outputs are those of ``snn.Leaky``: ``forward(input_, mem=None)`` returns ``(y, mem)``, or
    ``y`` alone with ``init_hidden=True, output=False``.  A `mem` of another shape than the input starts
    anew from zero, as in snnTorch.

    The backward pass recomputes the potentials from the input, so change no input in place after its step:
    ``x = x + lif(x)``, not ``x += lif(x)``, which is refused.  What is emitted may be changed in place.

    Source: arXiv:2311.09267.  Inferred: snnTorch's delayed, detached reset (`reset_delay`), inhibition,
    quantised state and spike factor, which the paper does not discuss.

    Examples
    --------
    >>> import torch, snn_ext.snntorch as ext
    >>> vsn = ext.VSN(beta=0.5, threshold=0.9)
    >>> mem = vsn.reset_mem()
    >>> for x in (0.4, 0.8, 0.3):
    ...     y, mem = vsn(torch.tensor([[x]]), mem)
    ...     print(f"emitted {y.item():.2f}, potential {mem.item():.2f}")
    emitted 0.00, potential 0.40
    emitted 0.80, potential 1.00
    emitted 0.00, potential 0.30
    """

    reset_mechanisms = ("zero",)
    why_not = "a VSN resets to zero by definition; leave it out, or use snn.Leaky for another reset"
    not_in_nir = "graded spikes"
    nir_remedy = "leave it out of what is exported"

    def __init__(
        self,
        beta: Numbers,
        threshold: Numbers = 1.0,
        spike_grad: Callable[[Tensor], Tensor] | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "zero",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: Numbers = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        activation: str | Callable[[Tensor], Tensor] = "identity",
    ) -> None:
        activation = _activation.resolve(activation)
        super().__init__(
            beta,
            threshold,
            spike_grad,
            surrogate_disable,
            init_hidden,
            inhibition,
            learn_beta,
            learn_threshold,
            reset_mechanism,
            state_quant,
            output,
            graded_spikes_factor,
            learn_graded_spikes_factor,
            reset_delay,
        )
        self.activation = activation

    def _equations(self) -> _vsn.VSN:
        return _vsn.VSN(self.activation)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}, {super().extra_repr()}"


class LIFB(Neuron):
    r"""Leaky integrate-and-fire-or-burst neuron: rests, spikes, or bursts.

    .. math::

        U[t] &= \beta\,U[t-1] + I[t] - R[t]\,U_\mathrm{thr} \\
        O[t] &= H(U[t] - U_\mathrm{thr}) \\
        B[t] &= H(U[t] - U_\mathrm{burst}) \\
        Y[t] &= O[t] + (\kappa - 1)\,B[t]

    where :math:`R[t] = O[t-1]`; the reset shown is ``"subtract"``.  With a burst intensity
    :math:`\kappa = 1` the neuron is ``snn.Leaky``, spike for spike and gradient for gradient.

    The arguments of ``snn.Leaky`` come first, in its order and with its meaning and defaults; only what
    differs is listed here.

    Parameters
    ----------
    beta : float or Tensor
        Decay of the potential per step, in [0, 1]; one value, or one per channel or neuron (any shape
        that broadcasts to the input).  Clamped to [0, 1] in the forward pass when it is learned.
    spike_grad : callable, optional
        Surrogate gradient, used at both thresholds; as in `VSN`.
    reset_mechanism : {"subtract", "zero", "none"}, default "subtract"
        Spikes and bursts reset alike, and as in ``snn.Leaky``.  (Inferred; the paper is believed to reset
        hard, which is ``"zero"``.)
    burst_threshold : float or Tensor, optional
        Potential above which an event is a burst; above `threshold`.  Left out, as far above `threshold` as
        that is from zero: twice `threshold`, where it is positive (inferred).
    burst_intensity : float or Tensor, default 2.0
        What a burst emits, :math:`\kappa \ge 1`.
    learn_burst_threshold, learn_burst_intensity : bool, default False
        Learn them.  Training keeps the burst threshold above the threshold and the intensity above 1:
        see `snn_ext.neurons.lifb.Burst`, the submodule ``burst`` that holds both.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy; no neuron has been registered then.

    Notes
    -----
    Inputs and outputs are those of ``snn.Leaky``: ``forward(input_, mem=None)`` returns ``(y, mem)``, or
    ``y`` alone with ``init_hidden=True, output=False``.  `snn_ext.snntorch.observe` counts the three modes,
    `decouple` gives the equivalent pair of ``snn.Leaky``.

    The backward pass recomputes the potentials from the input, so change no input in place after its step:
    ``x = x + lif(x)``, not ``x += lif(x)``, which is refused.  What is emitted may be changed in place.

    Source: arXiv:2301.12356; see `snn_ext.neurons.lifb` for what is inferred.

    Examples
    --------
    >>> import torch, snn_ext.snntorch as ext
    >>> lifb = ext.LIFB(beta=0.5, threshold=1.0, burst_threshold=2.0, burst_intensity=3.0)
    >>> y_seq, mem = lifb.multi_step(torch.tensor([[0.5], [1.0], [3.0]]))
    >>> y_seq.flatten().tolist(), mem.item()
    ([0.0, 1.0, 3.0], 2.625)
    """

    not_in_nir = "two thresholds on one potential"

    def __init__(
        self,
        beta: Numbers,
        threshold: Numbers = 1.0,
        spike_grad: Callable[[Tensor], Tensor] | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: Numbers = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        burst_threshold: Numbers | None = None,
        burst_intensity: Numbers = 2.0,
        learn_burst_threshold: bool = False,
        learn_burst_intensity: bool = False,
    ) -> None:
        threshold = checks.number_or_tensor("threshold", threshold)
        burst = _lifb.Burst(
            threshold, burst_threshold, burst_intensity, learn_burst_threshold, learn_burst_intensity
        )
        super().__init__(
            beta,
            threshold,
            spike_grad,
            surrogate_disable,
            init_hidden,
            inhibition,
            learn_beta,
            learn_threshold,
            reset_mechanism,
            state_quant,
            output,
            graded_spikes_factor,
            learn_graded_spikes_factor,
            reset_delay,
        )
        self.burst = burst

    @property
    def burst_threshold(self) -> Tensor:
        """The potential above which an event is a burst."""
        return self.burst.above(self.threshold)

    @property
    def burst_intensity(self) -> Tensor:
        """What a burst emits."""
        return self.burst.intensity

    def decouple(self) -> nn.Module:
        """Return the equivalent pair of native LIF neurons, in the same state: a `DecoupledLIFB`."""
        from .decoupling import DecoupledLIFB

        return DecoupledLIFB(self)

    def _equations(self) -> _lifb.LIFB:
        within = self.reset_mechanism == "zero" and not self.reset_delay
        return _lifb.LIFB("again" if within else RESETS[self.reset_mechanism], 0.0)

    def _parameters_of_its_own(self) -> dict[str, float | Tensor]:
        burst = self.burst
        return {"burst_threshold": burst.above(self.threshold), "burst_intensity": burst.intensity}


class SoftResetMPR(Neuron):
    r"""Soft-reset neuron with a membrane potential rectifier (MPR): firing is rounding.

    .. math::

        U[t] &= \beta\,(U[t-1] - A\,O[t-1]) + I[t] \\
        O[t] &= H(\varphi((U[t] - U_\mathrm{thr}) / A)) \\
        Y[t] &= A\,O[t]

    The rectifier :math:`\varphi` (`snn_ext.neurons.soft_reset_mpr`) pulls the potential towards 0 or
    :math:`A` without ever changing a spike: its effect is a gradient.  The rounding error is carried on.

    The arguments of ``snn.Leaky`` come first, in its order and with its meaning; only what differs is
    listed here.  The paper's ablation is: ``reset_mechanism="zero", mpr=False`` (vanilla), ``mpr=False``
    (soft reset alone), and the default (both).

    Parameters
    ----------
    beta : float or Tensor, default 1.0
        Decay of the potential per step, in [0, 1]; the authors' code has no leak.
    threshold : float or Tensor, default 0.5
        Firing level; an event needs ``mem > threshold``.
    spike_grad : callable, optional
        Surrogate on the (rectified) distance to the firing level in units of the amplitude;
        `snn_ext.surrogate.StraightThrough` if left out, as in the authors' code.
    reset_mechanism : {"subtract", "zero"}, default "subtract"
        ``"subtract"`` subtracts the amplitude, *before* the decay as in the paper (``snn.Leaky`` subtracts
        the threshold, after the decay).
    amplitude : float or Tensor, default 1.0
        Spike amplitude :math:`A` > 0: what is emitted, and what a soft reset subtracts.
    mpr : bool, default True
        Whether the rectifier is at work.
    detach_reset : bool, default False
        Keep the gradient from flowing through the reset.  The paper lets it flow, ``snn.Leaky`` does not.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy; no neuron has been registered then.

    Notes
    -----
    Inputs and outputs are those of ``snn.Leaky``.  `snn_ext.snntorch.observe` reports the quantisation
    error.  To use the rectifier's gradient on another neuron take ``spike_grad=snn_ext.surrogate.MPR()``,
    on a native ``snn.Leaky`` ``MPR(strict=True)``.

    The backward pass recomputes the potentials from the input, so change no input in place after its step:
    ``x = x + lif(x)``, not ``x += lif(x)``, which is refused.  What is emitted may be changed in place.

    Source: arXiv:2307.04356 and the authors' code; see `snn_ext.neurons.soft_reset_mpr` for what is inferred.

    Examples
    --------
    >>> import torch, snn_ext.snntorch as ext
    >>> y_seq, mem = ext.SoftResetMPR().multi_step(torch.tensor([[0.25], [0.5], [0.25]]))
    >>> y_seq.flatten().tolist(), mem.item()
    ([0.0, 1.0, 0.0], 0.0)
    """

    default_surrogate = StraightThrough(strict=True)
    reset_mechanisms = ("subtract", "zero")
    why_not = "a SoftResetMPR resets by 'subtract', or by 'zero' for the paper's vanilla arm"
    not_in_nir = "a soft reset"

    def __init__(
        self,
        beta: Numbers = 1.0,
        threshold: Numbers = 0.5,
        spike_grad: Callable[[Tensor], Tensor] | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: Numbers = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        amplitude: Numbers = 1.0,
        mpr: bool = True,
        detach_reset: bool = False,
    ) -> None:
        mpr, detach_reset = checks.flag("mpr", mpr), checks.flag("detach_reset", detach_reset)
        amplitude = checks.positive("amplitude", amplitude, "a spike carries something")
        super().__init__(
            beta,
            threshold,
            spike_grad,
            surrogate_disable,
            init_hidden,
            inhibition,
            learn_beta,
            learn_threshold,
            reset_mechanism,
            state_quant,
            output,
            graded_spikes_factor,
            learn_graded_spikes_factor,
            reset_delay,
        )
        checkpoints.hold(self, "amplitude", checkpoints.valued(amplitude))
        self.mpr = mpr
        self.detach_reset = detach_reset

    def _equations(self) -> _soft_reset_mpr.SoftResetMPR:
        mode = "hard" if self.reset_mechanism == "zero" else "soft"
        return _soft_reset_mpr.SoftResetMPR(self.mpr, mode, 0.0)

    def _parameters_of_its_own(self) -> dict[str, float | Tensor]:
        return {"amplitude": self.amplitude}

    @property
    def _detach_reset(self) -> bool:
        return bool(self.detach_reset)

    def extra_repr(self) -> str:
        return f"amplitude={checks.brief(self.amplitude)}, mpr={self.mpr}, {super().extra_repr()}"


def reset(net: nn.Module) -> None:
    """Reset every snnTorch neuron inside `net`, however deeply nested, and drop its graph.

    ``snntorch.utils.reset`` looks at the direct children of `net` only, and then resets the neurons of
    *every* network; this one resets the neurons of `net`, all of them and no others.
    """
    checks.network("net", net)
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron) and hasattr(module, "reset_mem"):
            module.reset_mem()
