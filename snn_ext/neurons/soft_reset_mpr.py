r"""Soft reset with a membrane potential rectifier (MPR): firing is rounding, and the error is carried on.

.. math::

    h_t &= d\,v_{t-1} + k\,x_t           && \text{charge} \\
    u_t &= \varphi((h_t - \theta) / A)   && \text{rectify: pull the potential to 0 or } A \\
    o_t &= H(u_t)                        && \text{fire} \\
    y_t &= A\,o_t                        && \text{emit a spike of amplitude } A \\
    v_t &= h_t - A\,o_t                  && \text{soft reset: subtract the spike, not the firing level}

with the rectifier, written around the firing level (:math:`z` is the distance to it in spikes),

.. math::

    \varphi(z) = \begin{cases}
        \tfrac12 \tanh(3z) / \tanh(\tfrac32)                      & |z| \le \tfrac12 \\
        \operatorname{sign}(z)\,((|z| + \tfrac12)^{1/3} - \tfrac12) & |z| > \tfrac12 .
    \end{cases}

:math:`\varphi` is odd and increasing, so it never changes a spike: its effect is a gradient.  What is
carried on is the raw :math:`h`, not the rectified potential.

Source: Y. Guo et al., ECCV 2022, arXiv:2307.04356, and the authors' released code, where
:math:`\theta = \tfrac12`, :math:`A = 1`, :math:`d = 1` (no leak), the reset is not detached, and the
surrogate is straight-through on the rectified potential clamped to [0, 1].  Inferred: the general form in
:math:`\theta` and :math:`A`, the leak, a hard reset beside the soft one, and that a spike of amplitude
:math:`A` is also emitted as :math:`A`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from .. import checks
from ..surrogate import Surrogate
from .leaky import Gradients, Leaky, Parameters, Spike

FAR = 2.0**40
"""Distances, in spikes, beyond which the potential does not matter."""


def rectify(z: Tensor) -> Tensor:
    """Return the rectified distance to the firing level, both in spikes."""
    return rectify_and_slope(z)[0]


def rectify_and_slope(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return `rectify` and its derivative, which is finite everywhere."""
    tanh, root = torch.tanh(3 * z), (z.abs() + 0.5) ** (1 / 3)
    near = z.abs() <= 0.5
    rectified = torch.where(near, 0.5 / math.tanh(1.5) * tanh, torch.sign(z) * (root - 0.5))
    return rectified, torch.where(near, 1.5 / math.tanh(1.5) * (1 - tanh**2), 1 / (3 * root**2))


@dataclasses.dataclass
class SoftResetMPR(Leaky):
    """The equations of the soft-reset neuron with MPR, and their derivatives.

    Parameters
    ----------
    mpr : bool
        ``False`` leaves the rectifier out: :math:`u = z`.
    reset_mode : {"soft", "hard"}
        A soft reset subtracts the amplitude.
    v_reset : float
        Where a hard reset leads.
    """

    mpr: bool = True
    reset_mode: str = "soft"
    v_reset: float = 0.0

    name: ClassVar[str] = "soft_reset_mpr"
    options: ClassVar[tuple[str, ...]] = ("mpr", "reset_mode", "v_reset")
    parameters: ClassVar[tuple[str, ...]] = ("decay", "gain", "threshold", "amplitude")
    subtracted: ClassVar[str] = "amplitude"

    def __post_init__(self) -> None:
        if self.mpr is not True and self.mpr is not False:  # a kernel takes it for a number
            self.mpr = checks.flag("mpr", self.mpr)

    def distance(self, h: Tensor, p: Parameters) -> Tensor:
        """Return the distance to the firing level in spikes, cut where it would overflow."""
        far = FAR * p["amplitude"].detach()
        return torch.maximum(torch.minimum(h - p["threshold"], far), -far) / p["amplitude"]

    def fire(self, h: Tensor, p: Parameters, spike: Spike) -> Tensor:
        """Return the events; the surrogate sees the distance in units of the amplitude."""
        if getattr(spike, "__func__", None) is Surrogate.step:  # the bare step: no rectifier changes it
            return spike(h - p["threshold"])
        z = self.distance(h, p)
        return spike(rectify(z) if self.mpr else z)

    def fire_backward(self, go: Tensor, h: Tensor, p: Parameters, slope: Spike) -> tuple[Tensor, Gradients]:
        z = self.distance(h, p)
        if self.mpr:
            rectified, steepness = rectify_and_slope(z)
            gz = go * slope(rectified) * steepness
        else:
            gz = go * slope(z)
        gz = torch.where(z.abs() < FAR, gz, torch.zeros_like(gz))
        gh = gz / p["amplitude"]
        return gh, {"threshold": lambda: -gh, "amplitude": lambda: -gh * z}

    def emit(self, x: Tensor, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> Tensor:
        return p["amplitude"] * o

    def emit_backward(
        self, gy: Tensor, x: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike, spike: Spike
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Gradients]:
        return None, None, gy * p["amplitude"], {"amplitude": lambda: gy * o}

    def measure(self, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> dict[str, Tensor]:
        r"""Also the quantisation error :math:`(u - y)^2` between potential and spike, in spikes squared."""
        z = self.distance(h, p)
        level = p["threshold"] / p["amplitude"]
        u = (rectify(z) if self.mpr else z) + level
        return {"firing_rate": o, "quantization_error": (u - o) ** 2}
