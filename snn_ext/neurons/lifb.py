r"""The leaky integrate-and-fire-or-burst neuron (LIFB): rest, a regular spike, or a burst.

.. math::

    h_t &= d\,v_{t-1} + k\,x_t                       && \text{charge} \\
    o_t &= H(h_t - \theta)                           && \text{an event: regular or burst} \\
    b_t &= H(h_t - \theta_b), \quad \theta_b > \theta && \text{a burst} \\
    y_t &= o_t + (\kappa - 1)\,b_t                   && \text{emit: rest 0, regular 1, burst } \kappa \\
    v_t &= \mathrm{reset}(h_t, o_t)                  && \text{hard or soft, alike for both kinds of event}

Source: G. Shen, D. Zhao and Y. Zeng, arXiv:2301.12356: the three modes, the adaptive burst density and
the lossless decoupling into LIF neurons.  Inferred, not read from the paper:
the three output levels with a learnable burst intensity :math:`\kappa \ge 1`, the second threshold, and
one reset for both kinds of event.

By derivation, :math:`\partial y/\partial\kappa = b_t` exactly, and
:math:`\partial y/\partial h = g(h - \theta) + (\kappa - 1)\,g(h - \theta_b)`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import checkpoints, checks
from ..checks import Numbers
from .leaky import Gradients, Leaky, Parameters, Spike, raised, raised_slope

SMALLEST_GAP = 2.0**-10
"""What a learned burst threshold keeps above the threshold at least."""


@dataclasses.dataclass
class LIFB(Leaky):
    """The equations of the LIFB and their derivatives.

    Parameters
    ----------
    reset_mode : {"hard", "soft", "late", "none"}
        See `snn_ext.neurons.leaky`; a soft reset subtracts the threshold.
    v_reset : float
        Where a hard reset leads.
    """

    reset_mode: str = "hard"
    v_reset: float = 0.0

    name: ClassVar[str] = "lifb"
    options: ClassVar[tuple[str, ...]] = ("reset_mode", "v_reset")
    parameters: ClassVar[tuple[str, ...]] = (
        "decay",
        "gain",
        "threshold",
        "burst_threshold",
        "burst_intensity",
    )

    def emit(self, x: Tensor, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> Tensor:
        return o + (p["burst_intensity"] - 1) * spike(h - p["burst_threshold"])

    def emit_backward(
        self, gy: Tensor, x: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike, spike: Spike
    ) -> tuple[Tensor | None, Tensor | None, Tensor, Gradients]:
        u = h - p["burst_threshold"]
        gu = gy * (p["burst_intensity"] - 1) * slope(u)
        return None, gu, gy, {"burst_threshold": lambda: -gu, "burst_intensity": lambda: gy * spike(u)}

    def transmitted(self, h: Tensor, o: Tensor, p: Parameters, spike: Spike, power: float) -> Tensor:
        r"""A burst is sent as :math:`\kappa` spikes; what is raised is the event, not :math:`\kappa`."""
        b = spike(h - p["burst_threshold"])
        return raised(o, power) + (p["burst_intensity"] - 1) * raised(b, power)

    def transmitted_backward(
        self, gs: Tensor, h: Tensor, o: Tensor, p: Parameters, slope: Spike, spike: Spike, power: float
    ) -> tuple[Tensor | None, Tensor, Gradients]:
        u = h - p["burst_threshold"]
        b = spike(u)
        gu = gs * raised_slope(b, power) * (p["burst_intensity"] - 1) * slope(u)
        grads: Gradients = {
            "burst_threshold": lambda: -gu,
            "burst_intensity": lambda: gs * raised(b, power),
        }
        return gu, gs * raised_slope(o, power), grads

    def measure(self, h: Tensor, o: Tensor, p: Parameters, spike: Spike) -> dict[str, Tensor]:
        """The three modes, whatever the burst intensity."""
        b = spike(h - p["burst_threshold"])
        return {"rest": 1 - o, "regular": o - b, "burst": b}


class Burst(nn.Module):
    r"""Burst threshold and burst intensity as a layer keeps them, so that training cannot break them.

    The layer stores the *gap* between the two thresholds, so the burst threshold follows a learned
    threshold.  What is learned is kept in range by its parametrisation:

    * :math:`\theta_b = \theta + \max(2^{-10} + \mathrm{softplus}(\text{raw\_gap}), 2^{-10} |\theta|)`, above
      the threshold;
    * :math:`\kappa = 1 + \mathrm{softplus}(\text{raw\_intensity})`, at least one.

    Both are inferred, not from the paper.  A constant for all neurons is no part of a checkpoint: see
    `snn_ext.checkpoints`.

    Parameters
    ----------
    threshold : float or Tensor
        The firing threshold that the layer starts with.
    burst_threshold : float, Tensor or None
        Above `threshold`; ``None`` is as far above it as it is from zero: twice a positive `threshold`.
    burst_intensity : float or Tensor
        At least 1; above 1 if it is learned.
    learn_threshold, learn_intensity : bool
        Make them parameters.
    name : str
        What the layer calls its threshold, for errors.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, the value and the remedy.
    """

    fixed_gap: Tensor
    fixed_intensity: Tensor

    def __init__(
        self,
        threshold: float | Tensor,
        burst_threshold: Numbers | None,
        burst_intensity: Numbers,
        learn_threshold: bool,
        learn_intensity: bool,
        name: str = "threshold",
    ) -> None:
        super().__init__()
        learn_threshold = checks.flag("learn_burst_threshold", learn_threshold)
        learn_intensity = checks.flag("learn_burst_intensity", learn_intensity)
        intensity = checkpoints.valued(
            checks.in_range("burst_intensity", burst_intensity, 1, torch.inf, "a burst is at least one spike")
        )
        gap = _gap(checkpoints.valued(threshold), burst_threshold, learn_threshold, name)
        if checks.any_infinite(intensity):
            raise ValueError("burst_intensity=inf must be finite; use a large number")
        if learn_intensity and checks.smallest(intensity) <= 1:
            raise ValueError("burst_intensity=1 must be above 1 when it is learned; start it higher")
        if learn_threshold:
            self.raw_gap = nn.Parameter(checkpoints.placed(_inverse_softplus(gap - SMALLEST_GAP)))
        else:
            checkpoints.hold(self, "fixed_gap", gap)
        if learn_intensity:
            self.raw_intensity = nn.Parameter(checkpoints.placed(_inverse_softplus(intensity - 1)))
        else:
            checkpoints.hold(self, "fixed_intensity", intensity.clone())

    def above(self, threshold: float | Tensor) -> Tensor:
        """Return the burst threshold for `threshold`; in float32 at least, where the smallest gap counts."""
        gap = self.gap
        if gap.dtype in (torch.float16, torch.bfloat16):
            gap = gap.float()
        if "raw_gap" in self._parameters:  # however large the threshold, the sum must not round to it
            gap = torch.maximum(gap, SMALLEST_GAP * torch.as_tensor(threshold).detach().abs().to(gap))
        return gap + threshold

    @property
    def gap(self) -> Tensor:
        """The burst threshold less the threshold."""
        raw = self._parameters.get("raw_gap")
        return self.fixed_gap if raw is None else SMALLEST_GAP + nn.functional.softplus(raw)

    @property
    def intensity(self) -> Tensor:
        """The burst intensity."""
        raw = self._parameters.get("raw_intensity")
        return self.fixed_intensity if raw is None else 1 + nn.functional.softplus(raw)

    def adapt(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Turn constants of a checkpoint into what is learned here, and the reverse."""
        for what, least in (("gap", SMALLEST_GAP), ("intensity", 1.0)):
            raw, fixed = f"{prefix}raw_{what}", f"{prefix}fixed_{what}"
            if f"raw_{what}" in self._parameters and fixed in state_dict:
                state_dict.setdefault(raw, _inverse_softplus(state_dict.pop(fixed) - least))
            elif f"fixed_{what}" in self._buffers and raw in state_dict:
                state_dict.setdefault(fixed, least + nn.functional.softplus(state_dict.pop(raw)))

    def extra_repr(self) -> str:
        with torch.no_grad():
            return f"gap={checks.brief(self.gap)}, intensity={checks.brief(self.intensity)}"


def _gap(level: Tensor, burst_threshold: Numbers | None, learned: bool, name: str) -> Tensor:
    """Return what the burst threshold stands above the threshold `level`, called `name`; or raise."""
    if burst_threshold is None:
        return _usual_gap(level, learned)
    above = checkpoints.valued(checks.number_or_tensor("burst_threshold", burst_threshold))
    if learned and checks.any_infinite(above):
        raise ValueError("burst_threshold=inf must be finite when it is learned; use a large number")
    checks.above("burst_threshold", above, name, level)
    if learned:
        checks.above("burst_threshold", above, f"{name} + {SMALLEST_GAP:g}", level + SMALLEST_GAP)
    return above - level


def _usual_gap(threshold: Tensor, learned: bool) -> Tensor:
    """Return what a burst threshold that is left out stands above `threshold`: its distance from zero.

    One, where that is nothing or infinite; and what is learned starts above the smallest gap.
    """
    gap = threshold.abs()
    gap = torch.where((gap > 0) & torch.isfinite(gap), gap, torch.ones_like(gap))
    return gap.clamp(min=2 * SMALLEST_GAP) if learned else gap


def _inverse_softplus(value: Tensor) -> Tensor:
    """Return the argument at which softplus is `value` > 0, without overflow."""
    return value + torch.log(-torch.expm1(-value))
