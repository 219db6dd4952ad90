"""Checks that both faces make when a neuron is built, so that both refuse alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def number_or_tensor(name: str, value: float | Tensor) -> float | Tensor:
    """Return `value` as a float or a floating-point tensor without NaN, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise TypeError(f"{name} must be a number or a torch.Tensor, got {type(value).__name__}")
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {value.dtype}; convert it with .float()")
        if bool(torch.isnan(value).any()):
            raise ValueError(f"{name} contains NaN: {value}; give numbers")
        return value
    if math.isnan(value):
        raise ValueError(f"{name} is NaN; give a number")
    return float(value)


def in_range(name: str, value: float | Tensor, low: float, high: float, remedy: str) -> float | Tensor:
    """Return `value` checked to lie in [low, high] everywhere, or raise with `remedy`."""
    value = number_or_tensor(name, value)
    smallest, largest = (
        (value.min().item(), value.max().item()) if isinstance(value, Tensor) else (value, value)
    )
    if smallest < low or largest > high:
        wrong = smallest if smallest < low else largest
        raise ValueError(f"{name}={wrong:g} is outside [{low:g}, {high:g}]; {remedy}")
    return value
