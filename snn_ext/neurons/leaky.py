r"""What every neuron here shares: leaky charging and firing at a threshold.

.. math::

    h_t = d\,v_{t-1} + k\,x_t, \qquad o_t = H(h_t - \theta)

with decay :math:`d`, input gain :math:`k` and threshold :math:`\theta`.  The functions take a
dictionary ``p`` of parameters, each a tensor that broadcasts against the potential.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Parameters = Mapping[str, Tensor]
Spike = Callable[[Tensor], Tensor]
Gradients = dict[str, Callable[[], Tensor]]
"""Gradients by parameter, before the reduction to its shape, computed only when called."""


def charge(x: Tensor, v: Tensor, p: Parameters) -> Tensor:
    """Return the potential ``h`` after the input `x` has charged the carried potential `v`."""
    return p["decay"] * v + p["gain"] * x


def charge_backward(gh: Tensor, x: Tensor, v: Tensor, p: Parameters) -> tuple[Tensor, Tensor, Gradients]:
    """Return the gradients of `x`, of `v`, and of the parameters of `charge`."""
    return p["gain"] * gh, p["decay"] * gh, {"decay": lambda: gh * v, "gain": lambda: gh * x}


def fire(h: Tensor, p: Parameters, spike: Spike) -> Tensor:
    """Return the events ``o``: `spike` applied to the distance to threshold."""
    return spike(h - p["threshold"])


def fire_backward(go: Tensor, h: Tensor, p: Parameters, slope: Spike) -> tuple[Tensor, Gradients]:
    """Return the gradients of `h` and of the threshold; `slope` is the surrogate derivative."""
    gu = go * slope(h - p["threshold"])
    return gu, {"threshold": lambda: -gu}
