"""Elementwise activations of a graded spike, with their derivatives.

Four have names that the operators know: ``"identity"``, ``"relu"``, ``"tanh"`` and ``"gelu"`` (the
exact one, by the error function).  Any other callable with ``act(0) == 0`` works too, by automatic
differentiation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def _gelu_derivative(z: Tensor) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(z * math.sqrt(0.5)))
    return cdf + z * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


FUNCTIONS: dict[str, Activation] = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
}
DERIVATIVES: dict[str, Activation] = {
    "identity": torch.ones_like,
    "relu": lambda z: (z > 0).to(z.dtype),
    "tanh": lambda z: 1 - torch.tanh(z) ** 2,
    "gelu": _gelu_derivative,
}
_SAME: dict[object, str] = {
    torch.relu: "relu",
    nn.functional.relu: "relu",
    torch.tanh: "tanh",
    nn.functional.gelu: "gelu",
    nn.Identity: "identity",
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
}


def resolve(activation: str | Activation) -> str | Activation:
    """Return the operator's name for `activation` where it has one, else the checked callable.

    The check evaluates a callable once on ``torch.zeros(1, 1)``; inside ``torch.compile`` and
    ``torch.func`` transforms, where no value can be looked at, it is left out.

    Raises
    ------
    ValueError
        An unknown name, or a callable that does not send zero to zero: a silent neuron would emit.
    TypeError
        Neither a name nor a callable.
    """
    if isinstance(activation, str):
        if activation not in FUNCTIONS:
            known = ", ".join(repr(name) for name in FUNCTIONS)
            raise ValueError(f"activation={activation!r} is not known; use one of {known}, or a callable")
        return activation
    if not callable(activation):
        raise TypeError(f"activation must be a name or a callable, got {type(activation).__name__}")
    key = type(activation) if isinstance(activation, nn.Module) else activation
    try:
        name = _SAME.get(key)
    except TypeError:  # an unhashable callable is none of ours
        name = None
    if name is not None:
        return name
    if type(activation) is nn.GELU and activation.approximate == "none":
        return "gelu"
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None:
        _check_zero(activation)
    return activation


def _check_zero(activation: Activation) -> None:
    held: list[Tensor] = []
    if isinstance(activation, nn.Module):
        held = [t for t in (*activation.parameters(), *activation.buffers()) if t.is_floating_point()]
    if held and held[0].is_meta:
        return
    zero = held[0].new_zeros(1, 1) if held else torch.zeros(1, 1)
    with torch.no_grad():
        try:
            value = activation(zero)
        except Exception as error:
            raise ValueError(
                f"activation={activation!r} failed on torch.zeros(1, 1) ({error}); "
                "give an elementwise callable that takes a tensor of any shape"
            ) from error
    if isinstance(value, Tensor) and value.shape != zero.shape:
        raise ValueError(
            f"activation={activation!r} changes the shape {tuple(zero.shape)} into {tuple(value.shape)}; "
            "give an elementwise callable"
        )
    if not isinstance(value, Tensor) or not bool((value == 0).all()):
        raise ValueError(
            f"activation={activation!r} has act(0) = {value}, but it must be 0, or a neuron that does not "
            "fire would emit; subtract act(0), or use 'identity', 'relu', 'tanh' or 'gelu'"
        )
