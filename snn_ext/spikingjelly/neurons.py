"""SpikingJelly's face of the neurons: ``tau``, ``v_threshold``, ``step_mode`` and what belongs to them.

``v`` follows SpikingJelly's convention: it is the potential *after* the reset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import checks, functional
from ..neurons import activation as _activation
from ._compat import Node, as_surrogate, brief, default_surrogate, native_positions

__all__ = ["VSNNode"]

_NAMES = {
    "v0": "v",
    "decay": "tau",
    "gain": "tau",
    "threshold": "v_threshold",
    "surrogate": "surrogate_function",
}


class VSNNode(Node):
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
    Source: arXiv:2311.09267; `decay_input` and the parametrisation of `tau` are SpikingJelly's.

    Examples
    --------
    >>> import torch
    >>> vsn = VSNNode(tau=2.0, decay_input=False, v_threshold=0.9, step_mode="m")
    >>> x_seq = torch.tensor([[0.4], [0.8], [0.3]])
    >>> [round(y, 2) for y in vsn(x_seq).flatten().tolist()], round(vsn.v.item(), 2)
    ([0.0, 0.8, 0.0], 0.3)
    """

    @native_positions
    def __init__(
        self,
        tau: float | Tensor = 2.0,
        decay_input: bool = True,
        v_threshold: float | Tensor = 1.0,
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
        tau = checks.in_range("tau", tau, 1, math.inf, "it is a time constant in steps; 1 keeps no memory")
        if learn_tau:
            checks.in_range("tau", tau, 1 + 1e-6, 1e6, "with learn_tau=True it starts strictly above 1")
        v_threshold = checks.number_or_tensor("v_threshold", v_threshold)
        if v_reset is None or v_reset != 0:
            raise ValueError(
                f"v_reset={v_reset}: a VSN resets to zero by definition; leave it out, or use LIFNode for "
                "another reset"
            )
        activation = _activation.resolve(activation)
        if surrogate_function is None:
            surrogate_function = default_surrogate()
        checks.spike_function("surrogate_function", surrogate_function)
        super().__init__(
            surrogate_function=surrogate_function,
            detach_reset=detach_reset,
            step_mode=step_mode,
            store_v_seq=store_v_seq,
            **native,
        )
        self.decay_input = decay_input
        self.activation = activation
        self._hold("v_threshold", v_threshold, learn_threshold)
        if learn_tau:
            self._hold("w", -torch.log(torch.as_tensor(tau) - 1), True)
        else:
            self._hold("tau", tau, False)

    def _simulate(self, x_seq: Tensor, v: Tensor, return_v_seq: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        w = getattr(self, "w", None)
        rate = 1 / self.tau if w is None else w.sigmoid()
        y_seq, v, *v_seq = functional.run_vsn(
            x_seq,
            v,
            decay=1 - rate,
            gain=rate if self.decay_input else 1.0,
            threshold=self.v_threshold,
            activation=self.activation,
            surrogate=as_surrogate(self.surrogate_function),
            detach_reset=self.detach_reset,
            return_v_seq=return_v_seq,
            names=_NAMES,
        )
        return y_seq, v, v_seq[0] if return_v_seq else None

    def extra_repr(self) -> str:
        with torch.no_grad():
            tau = self.tau if getattr(self, "w", None) is None else 1 / self.w.sigmoid()
        ours = f"tau={brief(tau)}, decay_input={self.decay_input}, activation={self.activation!r}"
        return f"{super().extra_repr()}, {ours}"
