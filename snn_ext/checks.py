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
    smallest, largest = (
        (value.min().item(), value.max().item()) if isinstance(value, Tensor) else (value, value)
    )
    if smallest < low or largest > high:
        wrong = smallest if smallest < low else largest
        raise ValueError(f"{name}={wrong:g} is outside [{low:g}, {high:g}]; {remedy}")
    return value


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
            f"{type(neuron).__name__} cannot be exported to NIR, which has no node for graded spikes, nor be "
            "traced by torch.fx; leave it out of what is exported, or make it a leaf module of your tracer"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")


def _has_values(value: Tensor) -> bool:
    """Whether the values of a tensor can be looked at."""
    return not value.is_meta and not isinstance(value, FakeTensor)
