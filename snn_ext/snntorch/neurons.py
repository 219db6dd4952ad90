"""snnTorch's face of the neurons: ``beta``, ``mem``, ``init_hidden`` and all that belongs to them.

``mem`` follows snnTorch's convention: it is the potential *before* the reset, which is made at the
next call, and the reset is detached.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from .. import checks, functional
from ..neurons import activation as _activation
from ._compat import as_surrogate

__all__ = ["VSN", "reset"]


class VSN(snn.Leaky):
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

    mem: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        threshold: float | Tensor = 1.0,
        spike_grad: Callable[[Tensor], Tensor] | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "zero",
        state_quant: Any = False,
        output: bool = False,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        reset_delay: bool = True,
        activation: str | Callable[[Tensor], Tensor] = "identity",
    ) -> None:
        beta = checks.in_range("beta", beta, 0, 1, "it is the fraction of the potential kept per step")
        threshold = checks.number_or_tensor("threshold", threshold)
        graded_spikes_factor = checks.number_or_tensor("graded_spikes_factor", graded_spikes_factor)
        _check_reset_mechanism(reset_mechanism)
        if state_quant and not callable(state_quant):
            raise TypeError(
                f"state_quant must be callable, got {type(state_quant).__name__}; use e.g. "
                "snntorch.functional.quant.state_quant(num_bits=4)"
            )
        if inhibition and not reset_delay:
            raise ValueError(
                "inhibition=True needs reset_delay=True: with an immediate reset only the winner would be "
                "reset, which a VSN does not define"
            )
        activation = _activation.resolve(activation)
        spike_grad = as_surrogate(spike_grad)
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

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run one step; see the class for what goes in and out."""
        checks.concrete_tensor(self, "input_", input_)
        y_seq, mem = self._run("input_", input_.unsqueeze(0), mem)
        return self._returned(y_seq.squeeze(0), mem)

    def multi_step(self, x_seq: Tensor, mem: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Run all steps of `x_seq`, shape (T, batch, ...), in one fused call.

        Equal to calling the neuron T times.  Returns ``(y_seq, mem)`` with `mem` after the last step, or
        ``y_seq`` alone with ``init_hidden=True, output=False``; takes `mem` as `forward` does.  Forward
        hooks belong to `forward` and are not called.
        """
        checks.concrete_tensor(self, "x_seq", x_seq)
        return self._returned(*self._run("x_seq", x_seq, mem))

    def _run(self, name: str, x_seq: Tensor, mem: Tensor | None) -> tuple[Tensor, Tensor]:
        if mem is not None:
            if self.init_hidden:
                raise TypeError("`mem` should not be passed as an argument while `init_hidden=True`")
            checks.concrete_tensor(self, "mem", mem)
        if self.inhibition and x_seq.dim() < 3:
            raise ValueError(
                f"{name} needs a batch and a neuron dimension for inhibition, got one step of shape "
                f"{tuple(x_seq.shape[1:])}"
            )
        state = self.mem if mem is None else mem
        y_seq, new, *mem_seq = functional.run_vsn(
            x_seq,
            state if state.shape == x_seq.shape[1:] else None,
            decay=self.beta.clamp(0, 1),
            threshold=self.threshold,
            activation=self.activation,
            surrogate=as_surrogate(self.spike_grad),
            detach_reset=self.reset_delay,
            reset_delay=self.reset_delay,
            state_quant=self.state_quant or None,
            return_v_seq=self.inhibition,
            names={"x_seq": name, "v0": "mem", "decay": "beta", "surrogate": "spike_grad"},
        )
        factor = functional.as_parameter("graded_spikes_factor", self.graded_spikes_factor, x_seq)
        if self.inhibition:
            y_seq = y_seq * _winners(mem_seq[0] - self.threshold).to(y_seq.dtype)
        self.mem = new
        return y_seq * factor.to(y_seq.dtype), new

    def _returned(self, y: Tensor, mem: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return y if self.init_hidden and not self.output else (y, mem)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the graph behind: a copy or pickle taken during training carries the bare potential."""
        state = self.__dict__.copy()
        state["_buffers"] = {**self._buffers, "mem": self.mem.detach()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Register the copy with snnTorch, whose reset and detach utilities go through `instances`.

        The list holds a copy weakly, so that snapshots of a network are freed with it.
        """
        super().__setstate__(state)
        instances = snn.SpikingNeuron.instances

        def forget(dead: Any) -> None:
            instances[:] = [neuron for neuron in instances if neuron is not dead]

        instances.append(weakref.proxy(self, forget))

    @property
    def reset_mechanism(self) -> str:
        """Always ``"zero"``."""
        return "zero"

    @reset_mechanism.setter
    def reset_mechanism(self, value: str) -> None:
        _check_reset_mechanism(value)

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}, spike_grad={self.spike_grad!r}"


def _check_reset_mechanism(value: str) -> None:
    if value != "zero":
        raise ValueError(
            f"reset_mechanism={value!r}: a VSN resets to zero by definition; leave it out, or use snn.Leaky "
            "for another reset"
        )


def _winners(distance_seq: Tensor) -> Tensor:
    """Return ones where the distance to threshold is the largest of dimension 1 of each step."""
    winner = distance_seq.argmax(dim=2, keepdim=True)
    return torch.zeros_like(distance_seq).scatter_(2, winner, 1.0)


def reset(net: nn.Module) -> None:
    """Reset every snnTorch neuron inside `net`, however deeply nested, and drop its graph.

    ``snntorch.utils.reset`` looks at the direct children of `net` only, and then resets the neurons of
    *every* network; this one resets the neurons of `net`, all of them and no others.
    """
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron) and hasattr(module, "reset_mem"):
            module.reset_mem()
