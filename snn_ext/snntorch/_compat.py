"""What differs between snnTorch's releases, found by feature; and its surrogates, recognised.

Supported from 0.8.1 on, the first release whose ``Leaky`` has ``reset_delay``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor

from .. import checks
from ..surrogate import ATan, FastSigmoid, Sigmoid, Surrogate

if "reset_delay" not in inspect.signature(snn.Leaky.__init__).parameters:
    raise ImportError(
        f"snnTorch {getattr(snn, '__version__', '(unknown version)')} is not supported: its Leaky has no "
        "reset_delay; upgrade with: pip install 'snntorch>=0.8.1'"
    )

_CLOSURES: dict[str, tuple[Callable[[float], Surrogate], str]] = {
    "atan": (ATan, "alpha"),
    "fast_sigmoid": (FastSigmoid, "slope"),
    "sigmoid": (Sigmoid, "slope"),
}


def as_surrogate(spike_grad: Any) -> Surrogate | Callable[[Tensor], Tensor]:
    """Return the fused surrogate equal to `spike_grad`, or `spike_grad` itself if there is none.

    snnTorch's surrogates are closures ``inner`` over one parameter; ``atan``, ``fast_sigmoid`` and
    ``sigmoid`` have a fused equal.  Whatever is fused fires strictly above threshold, as snnTorch does.
    """
    if spike_grad is None:
        return ATan(strict=True)
    if isinstance(spike_grad, Surrogate):
        return spike_grad.with_strict(True)
    checks.spike_function("spike_grad", spike_grad)
    if torch.compiler.is_compiling():  # an unrecognised closure is traced as it is
        return spike_grad
    if getattr(spike_grad, "__module__", None) == "snntorch.surrogate" and hasattr(spike_grad, "__code__"):
        name = getattr(spike_grad, "__qualname__", "").removesuffix(".<locals>.inner")
        if name == spike_grad.__name__:
            raise TypeError(
                f"spike_grad is snntorch.surrogate.{name} itself, which makes a surrogate: call it first, "
                f"spike_grad=snntorch.surrogate.{name}()"
            )
        cells = dict(
            zip(
                spike_grad.__code__.co_freevars,
                (cell.cell_contents for cell in spike_grad.__closure__ or ()),
                strict=True,
            )
        )
        if name in _CLOSURES and _CLOSURES[name][1] in cells:
            surrogate, parameter = _CLOSURES[name]
            return surrogate(float(cells[parameter])).with_strict(True)
    return spike_grad
