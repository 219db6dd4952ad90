"""Checks that both faces make when a neuron is built, so that both refuse alike."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
import torch.fx
from torch import Tensor
from torch._subclasses import FakeTensor


def number_or_tensor(name: str, value: float | Tensor) -> float | Tensor:
    """Return `value` as a float or a floating-point tensor without NaN, or raise."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Tensor)):
        raise TypeError(
            f"{name} must be a number or a torch.Tensor, got {type(value).__name__}; "
            "convert it with torch.as_tensor"
        )
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {value.dtype}; convert it with .float()")
        if value.numel() == 0:
            raise ValueError(f"{name} is empty, of shape {tuple(value.shape)}; give at least one value")
        if not _has_values(value):
            return value
        if bool(torch.isnan(value).any()):
            raise ValueError(f"{name} contains NaN: {value}; give numbers")
        return value
    if math.isnan(value):
        raise ValueError(f"{name} is NaN; give a number")
    return float(value)


def in_range(name: str, value: float | Tensor, low: float, high: float, remedy: str) -> float | Tensor:
    """Return `value` checked to lie in [low, high] everywhere, or raise with `remedy`."""
    value = number_or_tensor(name, value)
    if isinstance(value, Tensor) and not _has_values(value):
        return value
    smallest, largest = _extremes(value)
    if smallest < low or largest > high:
        wrong = smallest if smallest < low else largest
        raise ValueError(f"{name}={wrong:g} is outside [{low:g}, {high:g}]; {remedy}")
    return value


def smallest(value: Tensor) -> float:
    """Return the smallest element, or infinity where values cannot be looked at."""
    return value.min().item() if _has_values(value) else math.inf


def any_infinite(value: float | Tensor) -> bool:
    """Whether a value that can be looked at is infinite."""
    if isinstance(value, Tensor):
        return _has_values(value) and bool(torch.isinf(value).any())
    return math.isinf(value)


def positive(name: str, value: float | Tensor, remedy: str) -> float | Tensor:
    """Return `value` checked to be above zero and finite everywhere."""
    value = number_or_tensor(name, value)
    if isinstance(value, Tensor) and not _has_values(value):
        return value
    smallest, largest = _extremes(value)
    if not 0 < smallest <= largest < math.inf:
        wrong = largest if smallest > 0 else smallest
        raise ValueError(f"{name}={wrong:g} must be positive and finite; {remedy}")
    return value


def above(name: str, value: float | Tensor, bound_name: str, bound: float | Tensor) -> None:
    """Raise unless `value` is above `bound` everywhere."""
    value, bound = torch.as_tensor(value).detach(), torch.as_tensor(bound).detach()
    if not (_has_values(value) and _has_values(bound)):
        return
    try:
        wrong = ~(value > bound)
    except RuntimeError:
        raise ValueError(
            f"{name} of shape {tuple(value.shape)} and {bound_name} of shape {tuple(bound.shape)} do not "
            "broadcast; give one value, or the same shape"
        ) from None
    if bool(wrong.any()):
        low, limit = (t.expand(wrong.shape)[wrong][0].item() for t in (value, bound))
        raise ValueError(f"{name}={low:g} must be above {bound_name}={limit:g}; raise it")


def brief(value: Any) -> str:
    """Print one number as itself and a tensor of many as its shape."""
    if not isinstance(value, Tensor):
        return str(value)
    if value.numel() == 1 and not value.is_meta:
        return f"{value.item():.4g}"
    return f"tensor of shape {tuple(value.shape)}"


def spike_function(name: str, value: Any) -> None:
    """Raise unless `value` can serve as a spike function: an instance that can be called, not a class."""
    if isinstance(value, type):
        raise TypeError(f"{name} must be an instance, got the class {value.__name__}: call it first")
    if not callable(value):
        raise TypeError(
            f"{name} must be callable, got {type(value).__name__}; use e.g. snn_ext.surrogate.ATan()"
        )


def concrete_tensor(neuron: Any, name: str, x: Any) -> None:
    """Raise unless `x` is a tensor; a symbolic one, as in tracing for NIR exchange, has its own line."""
    if isinstance(x, torch.fx.Proxy):
        raise NotImplementedError(
            f"{type(neuron).__name__} cannot be exported to NIR, which has no node for {neuron.not_in_nir}, "
            f"nor be traced by torch.fx; {neuron.nir_remedy}, or make it a leaf module of your tracer"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")


def _extremes(value: float | Tensor) -> tuple[float, float]:
    return (value.min().item(), value.max().item()) if isinstance(value, Tensor) else (value, value)


def _has_values(value: Tensor) -> bool:
    """Whether the values of a tensor can be looked at."""
    return not value.is_meta and not isinstance(value, FakeTensor)
