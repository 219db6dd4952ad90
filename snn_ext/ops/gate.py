"""What may be handed to an implementation: `settled` for whoever reads memory, `check` for direct callers.

`snn_ext.functional` prepares its arguments, so that what it passes on needs no second look at shapes and
dtypes; the operators ``torch.ops.snn_ext.*`` can be called with anything, and refuse here what kernels would
misread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..neurons.activation import FUNCTIONS
from ..neurons.leaky import RESETS, Leaky, Parameters

STATES = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
"""The dtype of the state for each dtype of the input: half precisions keep a float32 state."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the state for an input of `dtype`."""
    try:
        return STATES[dtype]
    except KeyError:
        raise TypeError(
            f"input of {dtype} is not supported, only float16, bfloat16, float32 and float64; "
            "convert it with .float()"
        ) from None


_negative, _zero = Tensor.is_neg, Tensor._is_zerotensor


def settled(*tensors: Tensor | None) -> Sequence[Any]:
    """Return tensors whose memory holds their values, without torch's lazy negation and lazy zeros."""
    given = [tensor for tensor in tensors if tensor is not None]
    if any(map(_negative, given)) or any(map(_zero, given)):
        return [None if tensor is None else _settle(tensor) for tensor in tensors]
    return tensors


def _settle(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor._is_zerotensor() else tensor.resolve_neg()


def settled_grads(*grads: Tensor | None) -> Sequence[Any]:
    """Return gradients, which may be sparse as well, in such memory."""
    return settled(*[g if g is None or g.layout is torch.strided else g.to_dense() for g in grads])


def check(neuron: Leaky, x_seq: Tensor, v0: Tensor, p: Parameters, power: float) -> None:
    """Raise unless an operator can run `neuron` on these tensors.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what it is and what it must be.
    """
    if x_seq.dim() == 0 or x_seq.shape[0] == 0:
        raise ValueError(
            f"x_seq has shape {tuple(x_seq.shape)}, but needs at least one time step: (T, ...) with T >= 1"
        )
    state, step = compute_dtype(x_seq.dtype), x_seq.shape[1:]
    _must_be("x_seq", x_seq, x_seq, x_seq.dtype)
    _must_be("v0", v0, x_seq, state, step)
    for name, value in p.items():
        _must_be(name, value, x_seq, state)
        if value.dim() > len(step) or any(
            a not in (1, b) for a, b in zip(value.shape[::-1], step[::-1], strict=False)
        ):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, which does not broadcast to one time step of x_seq, "
                f"{tuple(step)}"
            )
    mode = neuron.reset_mode
    _known("reset_mode", mode, RESETS)
    _known("activation", getattr(neuron, "activation", "identity"), FUNCTIONS)
    if not math.isfinite(neuron.v_reset) or (neuron.v_reset != 0 and mode != "hard"):
        raise ValueError(f"v_reset={neuron.v_reset} must be finite, and 0.0 where reset_mode is not 'hard'")
    if power != 0 and not 1 <= power < math.inf:
        raise ValueError(f"power={power} must be 0, or finite and at least 1")


def check_grads(
    x_seq: Tensor, v0: Tensor, grad_y_seq: Tensor, grad_v: Tensor, grad_v_seq: Tensor, grad_sent: Tensor
) -> None:
    """Raise unless the gradients are those of what an operator returns; the last two may be empty."""
    _must_be("grad_y_seq", grad_y_seq, x_seq, x_seq.dtype, x_seq.shape)
    _must_be("grad_v", grad_v, x_seq, v0.dtype, v0.shape)
    for name, grad, shape in (("grad_v_seq", grad_v_seq, x_seq.shape), ("grad_sent", grad_sent, v0.shape)):
        if grad.numel():
            _must_be(name, grad, x_seq, v0.dtype, shape)


def _must_be(
    name: str, tensor: Tensor, x_seq: Tensor, dtype: torch.dtype, shape: torch.Size | None = None
) -> None:
    if tensor.layout is not torch.strided and not name.startswith("grad"):
        raise TypeError(f"{name} is {tensor.layout}, but must be dense; convert it with .to_dense()")
    if tensor.device != x_seq.device:
        raise ValueError(
            f"{name} is on {tensor.device} but x_seq is on {x_seq.device}; move one with .to(device)"
        )
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}, but must be {dtype} with x_seq of {x_seq.dtype}")
    if shape is not None and tensor.shape != shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, but must have {tuple(shape)} with x_seq of shape "
            f"{tuple(x_seq.shape)}"
        )


def _known(name: str, value: Any, names: Any) -> None:
    if value not in names:
        raise ValueError(f"{name}={value!r} is not known; use one of {', '.join(map(repr, names))}")
