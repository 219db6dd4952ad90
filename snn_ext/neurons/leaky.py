r"""What every neuron here shares: leaky charging, firing at a threshold, and the reset.

.. math::

    h_t &= d\,v_{t-1} + (1 - d)\,v_\mathrm{reset} + k\,x_t   && \text{charge} \\
    o_t &= H(h_t - \theta)                                   && \text{fire} \\
    v_t &= \mathrm{reset}(h_t, o_t)

with decay :math:`d`, input gain :math:`k` and threshold :math:`\theta`.  The reset is one of

============  =========================================================================================
``"hard"``    :math:`v_t = (1 - o_t)\,h_t + o_t\,v_\mathrm{reset}`
``"soft"``    :math:`v_t = h_t - s\,o_t`: what is subtracted (:math:`s`) decays with the rest
``"late"``    snnTorch's: :math:`v_t = h_t`, and :math:`s\,o_t` is subtracted from :math:`h_{t+1}`, undecayed
``"again"``   snnTorch's zero reset within the step: hard, and what already stood above threshold before
              the step has been reset at its beginning, and is not reset again
``"none"``    :math:`v_t = h_t`
============  =========================================================================================

Only a hard reset has a :math:`v_\mathrm{reset}`; it is also where the potential leaks to, as in SpikingJelly.
The methods take a dictionary ``p`` of parameters, each a tensor that broadcasts against the potential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

RESETS = ("hard", "soft", "late", "again", "none")
Parameters = Mapping[str, Tensor]
Spike = Callable[[Tensor], Tensor]
Gradients = dict[str, Callable[[], Tensor]]
"""Gradients by parameter, before the reduction to its shape, computed only when called."""


class Leaky:
    """Base of the neurons, each a dataclass of its options; a neuron adds `emit` and `measure`."""

    name: ClassVar[str]
    """The name of the operator."""
    parameters: ClassVar[tuple[str, ...]] = ("decay", "gain", "threshold")
    """What the operator takes as tensors, in order."""
    options: ClassVar[tuple[str, ...]] = ()
    """The fields that the operator takes, in order, each a string, a number or a boolean."""
    subtracted: ClassVar[str] = "threshold"
    """The parameter that a soft reset subtracts."""
    reset_mode: str = "hard"
    v_reset: float = 0.0

    def in_precision(self, dtype: torch.dtype) -> Leaky:
        """Return the neuron for input of `dtype`, where it has a part that computes in it."""
        return self

    def charge(self, x: Tensor, v: Tensor, r: Tensor | None, p: Parameters) -> Tensor:
        """Return the potential ``h`` after the input `x` has charged the carried potential `v`.

        `r` holds the events whose reset is due now (``"late"`` and ``"again"``).
        """
        if r is not None and self.reset_mode == "again":
            v, r = (1 - r) * v, None
        h = p["decay"] * v + p["gain"] * x
        if self.v_reset != 0:
            h = h + (1 - p["decay"]) * self.v_reset
        return h if r is None else h - r * p[self.subtracted]

    def charge_backward(
        self, gh: Tensor, x: Tensor, v: Tensor, r: Tensor | None, p: Parameters
    ) -> tuple[Tensor, Tensor, Gradients]:
        """Return the gradients of `x`, of `v`, and of the parameters; `r` is a constant."""
        gv = p["decay"] * gh
        if r is not None and self.reset_mode == "again":
            v, gv, r = (1 - r) * v, (1 - r) * gv, None
        grads: Gradients = {"decay": lambda: gh * (v - self.v_reset), "gain": lambda: gh * x}
        if r is not None:
            grads[self.subtracted] = lambda: -gh * r
        return p["gain"] * gh, gv, grads

    def fire(self, h: Tensor, p: Parameters, spike: Spike) -> Tensor:
        """Return the events ``o``: `spike` applied to the distance to threshold."""
        return spike(h - p["threshold"])

    def fire_backward(self, go: Tensor, h: Tensor, p: Parameters, slope: Spike) -> tuple[Tensor, Gradients]:
        """Return the gradients of `h` and of the parameters; `slope` is the surrogate derivative."""
        gu = go * slope(h - p["threshold"])
        return gu, {"threshold": lambda: -gu}

    def reset(self, h: Tensor, o: Tensor, p: Parameters) -> Tensor:
        """Return the potential carried on."""
        if self.reset_mode in ("hard", "again"):
            return (1 - o) * h if self.v_reset == 0 else (1 - o) * h + o * self.v_reset
        return h if self.reset_mode == "none" else h - p[self.subtracted] * o

    def reset_backward(
        self, gv: Tensor, h: Tensor, o: Tensor, p: Parameters
    ) -> tuple[Tensor, Tensor | None, Gradients]:
        """Return the gradients of `h`, of `o` (``None``: none) and of the parameters."""
        if self.reset_mode in ("hard", "again"):
            return gv * (1 - o), gv * (self.v_reset - h), {}
        if self.reset_mode == "none":
            return gv, None, {}
        return gv, -gv * p[self.subtracted], {self.subtracted: lambda: -gv * o}

    def emit(self, x: Tensor, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> Tensor:
        """Return what the neuron emits."""
        raise NotImplementedError

    def emit_backward(
        self, gy: Tensor, x: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike, spike: Spike
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Gradients]:
        """Return the gradients of `x`, `h` (``None``: none), `o` and of the parameters."""
        raise NotImplementedError

    def transmitted(self, h: Tensor, o: Tensor, p: Parameters, spike: Spike, power: float) -> Tensor:
        """Return the number of spikes that are sent, each to the `power`, which changes gradients alone."""
        return raised(o, power)

    def transmitted_backward(
        self, gs: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike, spike: Spike, power: float
    ) -> tuple[Tensor | None, Tensor, Gradients]:
        """Return the gradients of `h` (``None``: none), `o` and of the parameters."""
        return None, gs * raised_slope(o, power), {}

    def measure(self, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> dict[str, Tensor]:
        """Return what is worth watching (`snn_ext.observe`), one value a neuron, to be averaged."""
        return {"firing_rate": o}


def raised(o: Tensor, power: float) -> Tensor:
    """Return events to a power of at least 1."""
    return o if power == 1 else o**power


def raised_slope(o: Tensor, power: float) -> Tensor | float:
    """Return the derivative of `raised`: with 1 neurons that are silent have one, too."""
    return 1.0 if power == 1 else power * o ** (power - 1)
