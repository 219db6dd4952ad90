r"""Surrogate gradients: the firing step forward, a smooth derivative backward.

A spiking neuron fires by the Heaviside step :math:`o = H(u)` of the distance to threshold
:math:`u = h - \theta`, whose derivative is zero almost everywhere.  A *surrogate* replaces that
derivative in the backward pass by a bump :math:`g(u)` around zero.

Each surrogate is a small immutable value: it compares by its parameters, pickles, hashes, prints
itself, and can be called as ``surrogate(u)`` wherever a framework wants a spike function.

==================  ==============================================  ===================================
class               :math:`g(u)`                                    equal to
==================  ==============================================  ===================================
`ATan`              ``(a/2) / (1 + (pi a u / 2)^2)``                both frameworks' ``atan`` / ``ATan``
`FastSigmoid`       ``1 / (1 + k |u|)^2``                           snnTorch's ``fast_sigmoid``
`Sigmoid`           ``k s (1 - s)``, ``s = 1 / (1 + exp(-k u))``    both frameworks' sigmoid
`Triangular`        ``max(0, 1 - |u|/w) / w``                       SpikingJelly's ``PiecewiseQuadratic``
`Rectangular`       ``1/w`` where ``|u| < w/2``                     SpikingJelly's ``Rect``
`StraightThrough`   ``1/w`` where ``|u| <= w/2``                    the identity, clamped
`MPR`               ``c (1 - tanh(3u/w)^2) / w``, ``|u| <= w/2``    `snn_ext.neurons.soft_reset_mpr`
==================  ==============================================  ===================================
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import checks

__all__ = [
    "MPR",
    "ATan",
    "FastSigmoid",
    "Rectangular",
    "Sigmoid",
    "StraightThrough",
    "Surrogate",
    "Triangular",
]


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Base of the named surrogates; use one of its subclasses.

    Parameters
    ----------
    spiking : bool, default True
        ``True``: the forward pass is the step and the backward pass uses :math:`g`.  ``False``: the
        forward pass is the smooth primitive of :math:`g` (no spikes; for checking gradients, or as a
        soft network).  The word and its meaning are SpikingJelly's.
    strict : bool, default False
        ``False`` fires at ``u >= 0`` (SpikingJelly's convention), ``True`` at ``u > 0`` (snnTorch's).
    """

    spiking: bool = dataclasses.field(default=True, kw_only=True)
    strict: bool = dataclasses.field(default=False, kw_only=True)

    name: ClassVar[str]
    """The name under which the operators know this surrogate."""
    shape: ClassVar[str]
    """The name of its shape parameter."""

    @property
    def scale(self) -> float:
        """The shape parameter (``alpha``, ``slope`` or ``width``) as the operators take it."""
        return float(getattr(self, self.shape))

    def with_strict(self, strict: bool) -> Surrogate:
        """Return this surrogate with the given firing convention."""
        return self if strict == self.strict else dataclasses.replace(self, strict=strict)

    def gradient(self, u: Tensor) -> Tensor:
        """Return :math:`g(u)`, elementwise."""
        raise NotImplementedError

    def primitive(self, u: Tensor) -> Tensor:
        r"""Return :math:`\tfrac12 + \int_0^u g`, the smooth stand-in for the step."""
        raise NotImplementedError

    def step(self, u: Tensor) -> Tensor:
        """Return the bare step of `u` as 0 and 1 in the dtype of `u`; no gradient of its own."""
        return (u > 0 if self.strict else u >= 0).to(u.dtype)

    def __call__(self, u: Tensor) -> Tensor:
        """Return the spikes of `u` (or the primitive, if not `spiking`), differentiable."""
        if not self.spiking:
            return self.primitive(u)
        if not torch.compiler.is_compiling():
            return _DualSpike.apply(u, self)
        if forward_ad._current_level >= 0:  # torch.compile traces no function with a forward-mode rule
            soft = self.primitive(u)
            return self.step(u) + (soft - soft.detach())
        return _Spike.apply(u, self)

    def __post_init__(self) -> None:
        if type(self) is Surrogate:
            raise TypeError("Surrogate is the base class; use ATan(), FastSigmoid(), Sigmoid(), ...")
        field, value = self.shape, getattr(self, self.shape)
        if type(value) is not float or not 0 < value < math.inf:
            object.__setattr__(self, field, self._number(field, value))
        if type(self.spiking) is not bool or type(self.strict) is not bool:
            for name in ("spiking", "strict"):
                object.__setattr__(self, name, checks.flag(name, getattr(self, name)))

    def _number(self, field: str, value: Any) -> float:
        try:
            number = checks.number(field, value)
        except TypeError:
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(
                f"{type(self).__name__}({field}={value!r}): {field} must be a positive, finite number"
            )
        return number


@dataclasses.dataclass(frozen=True)
class ATan(Surrogate):
    """Derivative of a scaled arc tangent (Fang et al., ICCV 2021); the default everywhere."""

    alpha: float = 2.0
    shape: ClassVar[str] = "alpha"
    name: ClassVar[str] = "atan"

    def gradient(self, u: Tensor) -> Tensor:
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * u) ** 2)

    def primitive(self, u: Tensor) -> Tensor:
        return torch.atan(math.pi / 2 * self.alpha * u) / math.pi + 0.5


@dataclasses.dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """Derivative of ``u / (1 + k |u|)`` (Zenke & Ganguli, Neural Computation 2018)."""

    slope: float = 25.0
    shape: ClassVar[str] = "slope"
    name: ClassVar[str] = "fast_sigmoid"

    def gradient(self, u: Tensor) -> Tensor:
        return 1 / (1 + self.slope * u.abs()) ** 2

    def primitive(self, u: Tensor) -> Tensor:
        return u / (1 + self.slope * u.abs()) + 0.5


@dataclasses.dataclass(frozen=True)
class Sigmoid(Surrogate):
    """Derivative of the logistic function of ``slope * u``, stable for any `u`."""

    slope: float = 4.0
    shape: ClassVar[str] = "slope"
    name: ClassVar[str] = "sigmoid"

    def gradient(self, u: Tensor) -> Tensor:
        s = torch.sigmoid(self.slope * u)
        return self.slope * s * (1 - s)

    def primitive(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * u)


@dataclasses.dataclass(frozen=True)
class Triangular(Surrogate):
    """A triangle of area one, zero beyond ``|u| >= width`` (not snnTorch's ``triangular``, which is
    a constant of alternating sign)."""

    width: float = 1.0
    shape: ClassVar[str] = "width"
    name: ClassVar[str] = "triangular"

    def gradient(self, u: Tensor) -> Tensor:
        return torch.clamp(1 - u.abs() / self.width, min=0) / self.width

    def primitive(self, u: Tensor) -> Tensor:
        w = torch.clamp(u / self.width, -1, 1)
        return 0.5 + w - w * w.abs() / 2


@dataclasses.dataclass(frozen=True)
class Rectangular(Surrogate):
    """A box of area one, zero where ``|u| >= width / 2``."""

    width: float = 1.0
    shape: ClassVar[str] = "width"
    name: ClassVar[str] = "rectangular"

    def gradient(self, u: Tensor) -> Tensor:
        return (u.abs() < self.width / 2).to(u.dtype) / self.width

    def primitive(self, u: Tensor) -> Tensor:
        return torch.clamp(u / self.width + 0.5, 0, 1)


@dataclasses.dataclass(frozen=True)
class StraightThrough(Surrogate):
    """The slope of the identity clamped to an interval, whose ends belong to it: ``|u| <= width / 2``.

    `Rectangular` but for the ends, where a silent neuron may well stand (a potential of 0 with a firing
    level of one half).
    """

    width: float = 1.0
    shape: ClassVar[str] = "width"
    name: ClassVar[str] = "straight_through"

    def gradient(self, u: Tensor) -> Tensor:
        return (u.abs() <= self.width / 2).to(u.dtype) / self.width

    def primitive(self, u: Tensor) -> Tensor:
        return torch.clamp(u / self.width + 0.5, 0, 1)


@dataclasses.dataclass(frozen=True)
class MPR(Surrogate):
    """The membrane potential rectifier (Guo et al., ECCV 2022) as a surrogate for any neuron.

    The slope of the rectifier around the firing level, straight-through beyond it:
    ``1.5 / (tanh(1.5) width) * (1 - tanh(3 u / width)^2)`` where ``|u| <= width / 2``, else zero.  `width` is
    the amplitude of a spike; the paper fires at half of it.  Equal to the gradient that
    `snn_ext.functional.soft_reset_mpr` has by its own rectifier (derived, not the paper's formula).
    On a native ``snn.Leaky`` take ``MPR(strict=True)``: snnTorch, and the paper, fire strictly above.
    """

    width: float = 1.0
    shape: ClassVar[str] = "width"
    name: ClassVar[str] = "mpr"

    def gradient(self, u: Tensor) -> Tensor:
        slope = 1.5 / math.tanh(1.5) * (1 - torch.tanh(3 / self.width * u) ** 2)
        return torch.where(u.abs() <= self.width / 2, slope, torch.zeros_like(u)) / self.width

    def primitive(self, u: Tensor) -> Tensor:
        z = torch.clamp(u / self.width, -0.5, 0.5)
        return 0.5 + 0.5 * torch.tanh(3 * z) / math.tanh(1.5)


_BY_NAME: dict[str, type[Surrogate]] = {
    cls.name: cls for cls in (ATan, FastSigmoid, Sigmoid, Triangular, Rectangular, StraightThrough, MPR)
}


def is_fused(surrogate: object) -> bool:
    """Whether the operators know `surrogate`: one of the named ones, not a class derived from them."""
    return _BY_NAME.get(getattr(surrogate, "name", "")) is type(surrogate)


def from_name(name: str, scale: float, *, spiking: bool = True, strict: bool = False) -> Surrogate:
    """Rebuild a surrogate from what an operator carries: its `name` and its shape parameter."""
    make: Any = _BY_NAME.get(name)
    if make is None:
        raise ValueError(f"surrogate={name!r} is not known; use one of {', '.join(map(repr, _BY_NAME))}")
    return make(scale, spiking=spiking, strict=strict)


class _Spike(torch.autograd.Function):
    """Step forward, ``g`` backward; also under ``torch.func``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: Surrogate) -> Tensor:
        return surrogate.step(u)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        u, ctx.surrogate = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad * ctx.surrogate.gradient(u), None


class _DualSpike(_Spike):
    """The same, with forward-mode differentiation."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        _Spike.setup_context(ctx, inputs, output)
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (u,) = ctx.saved_tensors
        return tangent * ctx.surrogate.gradient(u)
