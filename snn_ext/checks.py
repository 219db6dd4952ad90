"""Checks of what users give, made in one place, so that every part refuses alike and in the same words."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.fx
from torch import Tensor
from torch._subclasses import FakeTensor

Numbers = float | Tensor | Sequence[float] | np.ndarray
"""One value, or one per channel or neuron, of any kind that `given` takes."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What the neurons compute in, or take as input."""
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def given(name: str, value: Any) -> float | Tensor:
    """Return `value` as a float or a floating-point tensor, or raise.

    Taken is what ``snn.Leaky`` takes: numbers of any kind, NumPy's included, tensors, arrays and lists.
    Whole numbers become floating point; arrays are copied.
    """
    if isinstance(value, Tensor):
        return floating(name, value)
    if isinstance(value, (float, int)) and not isinstance(value, bool):
        return _float(name, value)
    if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
        return _from_array(name, value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return _float(name, value)
    raise TypeError(
        f"{name} must be a number or a torch.Tensor, got {type(value).__name__}; "
        "an array or a list of numbers will do, too"
    )


def number(name: str, value: Any, otherwise: str = "") -> float:
    """Return one number of any kind as a float, or raise; `otherwise` says what else would do."""
    if isinstance(value, Tensor):
        fits = not (value.dim() or value.requires_grad) and value.dtype in (*FLOATS, *_WHOLE)
        fits = fits and _has_values(value)
    else:
        fits = isinstance(value, numbers.Real) or (isinstance(value, np.ndarray) and value.ndim == 0)
    if not fits or isinstance(value, bool):
        raise TypeError(f"{name} must be a number{otherwise}, got {type(value).__name__}")
    return float(given(name, value))


def flag(name: str, value: Any) -> bool:
    """Return `value` as True or False, or raise."""
    if isinstance(value, (bool, np.bool_)) or (type(value) is int and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {shown(value)}")


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether `value` is a whole number, of Python or NumPy, of at least `least`, that can be counted to."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(least <= value < 2**31)


def is_one_of(value: Any, among: Sequence[str]) -> bool:
    """Whether `value` is one of the names, whatever its type."""
    return isinstance(value, str) and value in among


def network(name: str, net: Any) -> None:
    """Raise unless `net` is a module."""
    if not isinstance(net, torch.nn.Module):
        raise TypeError(f"{name} must be a torch.nn.Module, got {type(net).__name__}")


def batches(name: str, loader: Any) -> None:
    """Raise unless `loader` gives batches."""
    if isinstance(loader, Tensor):
        raise TypeError(f"{name} must give batches, got one tensor; give [images], or images.split(64)")
    if isinstance(loader, (str, bytes)) or not hasattr(loader, "__iter__") or isinstance(loader, type):
        raise TypeError(f"{name} must give batches, got {type(loader).__name__}")


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by this package, and not by what it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("snn_ext.")


def shown(value: Any) -> str:
    """Print a value in short, for an error."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def floating(name: str, value: Tensor) -> Tensor:
    """Return a tensor of numbers as a floating-point one, or raise."""
    if value.dtype in FLOATS and value.layout is torch.strided:
        return value
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {value.layout}; convert it with .to_dense()")
    if value.dtype not in _WHOLE:
        raise TypeError(f"{name} must be floating point, got {value.dtype}; convert it with {name}.float()")
    return value.to(torch.get_default_dtype())


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        raise ValueError(f"{name} is too large for a number; give a smaller one") from None


def _from_array(name: str, value: Any) -> float | Tensor:
    try:
        tensor = torch.tensor(value if isinstance(value, (list, tuple)) else np.array(value, order="C"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must hold numbers, got {shown(value)} ({error})") from None
    tensor = floating(name, tensor)
    return tensor if tensor.dim() else tensor.item()


def number_or_tensor(name: str, value: Any) -> float | Tensor:
    """Return `value` as a float or a floating-point tensor without NaN, or raise."""
    value = given(name, value)
    if isinstance(value, Tensor):
        if value.numel() == 0:
            raise ValueError(f"{name} is empty, of shape {tuple(value.shape)}; give at least one value")
        if _has_values(value) and bool(torch.isnan(value).any()):
            raise ValueError(f"{name} contains NaN: {shown(value)}; give numbers")
        return value
    if math.isnan(value):
        raise ValueError(f"{name} is NaN; give a number")
    return value


def in_range(name: str, value: Any, low: float, high: float, remedy: str) -> float | Tensor:
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


def positive(name: str, value: Any, remedy: str) -> float | Tensor:
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


def spike_function(name: str, value: Any, probe: bool = False) -> None:
    """Raise unless `value` can serve as a spike function: an instance that can be called, not a class.

    With `probe`, it is also called once on ``torch.zeros(1, 1)``, to see whether it returns spikes: a factory
    that has yet to be called returns a function.
    """
    if isinstance(value, type):
        raise TypeError(f"{name} must be an instance, got the class {value.__name__}: call it first")
    if not callable(value):
        raise TypeError(
            f"{name} must be callable, got {type(value).__name__}; use e.g. snn_ext.surrogate.ATan()"
        )
    if probe and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active():
        _probe(name, value)


def _probe(name: str, spike: Any) -> None:
    label = getattr(spike, "__name__", None) or type(spike).__name__
    held = [*spike.parameters(), *spike.buffers()] if isinstance(spike, torch.nn.Module) else []
    zero = torch.zeros(1, 1, device=held[0].device if held else None)
    if zero.is_meta or torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            found = spike(zero)
        except Exception as error:
            raise TypeError(
                f"{name} failed on torch.zeros(1, 1) ({label}: {error}); give a callable of one tensor"
            ) from error
    if not isinstance(found, Tensor):
        raise TypeError(
            f"{name} must return spikes, but {label} returned a {type(found).__name__}; "
            f"call it first: {name}={label}()"
        )
    if found.shape != zero.shape:
        raise ValueError(
            f"{name} must be elementwise, but {label} turns the shape {tuple(zero.shape)} into "
            f"{tuple(found.shape)}"
        )


def overrides(cls: type, native: type, parts: Sequence[str], step: str, instead: str) -> None:
    """Raise if `cls` has its own of the `parts` of a `native` step, which our fused step does not call.

    A class that has its own `step` makes of them what it will.
    """
    for base in cls.__mro__[: cls.__mro__.index(native)]:
        own = [name for name in parts if name in vars(base)]
        if step in vars(base) and not base.__module__.startswith("snn_ext."):
            return
        if own:
            raise TypeError(
                f"{cls.__name__} overrides {own[0]}, which no neuron of snn_ext calls: a step is one fused "
                f"operator. Override {step}, or make it {instead}"
            )


def concrete_tensor(neuron: Any, name: str, x: Any) -> Tensor:
    """Return a tensor of numbers as a floating-point one; a symbolic one, as in tracing, has its own line."""
    if isinstance(x, Tensor):
        return x if x.is_floating_point() else floating(name, x)
    if isinstance(x, torch.fx.Proxy):
        raise NotImplementedError(
            f"{type(neuron).__name__} cannot be exported to NIR, which has no node for {neuron.not_in_nir}, "
            f"nor be traced by torch.fx; {neuron.nir_remedy}, or make it a leaf module of your tracer"
        )
    raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")


def _extremes(value: float | Tensor) -> tuple[float, float]:
    return (value.min().item(), value.max().item()) if isinstance(value, Tensor) else (value, value)


def _has_values(value: Tensor) -> bool:
    """Whether the values of a tensor can be looked at."""
    return not value.is_meta and not isinstance(value, FakeTensor)
