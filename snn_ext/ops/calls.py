"""What native and CuPy kernels are called with: flat memory, and numbers for names.

A kernel sees the input as ``[steps, count]``: time, then neurons in the order in which memory holds them, so
that channels-last and other dense layouts cost no copy.  A parameter is given by its distinct values:
neuron `n` has number ``(n // inner) % middle``, which covers a scalar, one value per neuron, and one per
channel in any memory format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..neurons.leaky import Leaky, Parameters
from ..surrogate import Surrogate

# The numbers that c/dynamics.h knows these by.
NEURONS = ("vsn", "lifb", "soft_reset_mpr")
RESETS = ("hard", "soft", "late", "again", "none")
SURROGATES = ("atan", "fast_sigmoid", "sigmoid", "triangular", "rectangular", "straight_through", "mpr")
ACTIVATIONS = ("identity", "relu", "tanh", "gelu")
PARAMETERS = 5
"""Decay, gain, threshold, and up to two of the neuron's own."""


class Numbers(NamedTuple):
    """What a kernel is told of a neuron, in the order of the C structures."""

    neuron: int
    reset: int
    activation: int
    surrogate: int
    spiking: bool
    strict: bool
    detach_reset: bool
    reset_delay: bool
    constant_start: bool
    mpr: bool


def numbers(
    neuron: Leaky, surrogate: Surrogate, *, detach_reset: bool, reset_delay: bool, constant_start: bool
) -> Numbers:
    """Return the numbers for `neuron` and its circumstances."""
    return Numbers(
        NEURONS.index(neuron.name),
        RESETS.index(neuron.reset_mode),
        ACTIVATIONS.index(getattr(neuron, "activation", "identity")),
        SURROGATES.index(surrogate.name),
        surrogate.spiking,
        surrogate.strict,
        detach_reset,
        reset_delay,
        constant_start,
        getattr(neuron, "mpr", False),
    )


class Flat:
    """How the sequences of a call lie in memory, and back.

    Parameters
    ----------
    x_seq : Tensor, shape (T, *S)
        The input, whose layout the other sequences take.
    """

    def __init__(self, x_seq: Tensor) -> None:
        self.steps, self.shape = x_seq.shape[0], x_seq.shape[1:]
        self.count = math.prod(self.shape)
        self.order: tuple[int, ...] | None = None  # the step's dimensions as memory has them, if not in order
        self.like = x_seq
        self.dense = x_seq.is_contiguous()
        if not self.dense:
            strides = x_seq[0].stride()
            order = tuple(sorted(range(len(strides)), key=lambda d: (-strides[d], self.shape[d] == 1)))
            if x_seq.permute(0, *(d + 1 for d in order)).is_contiguous():
                self.dense, self.order = True, order

    def empty(self, dtype: torch.dtype) -> Tensor:
        """Return memory for a sequence in the layout of the input."""
        if self.dense:
            return torch.empty_like(self.like, dtype=dtype)
        return torch.empty(self.like.shape, dtype=dtype, device=self.like.device)

    def empty_step(self, dtype: torch.dtype) -> Tensor:
        """Return memory for one step, in the order of the input's."""
        return torch.empty(self.steps_sizes(), dtype=dtype, device=self.like.device)

    def step_like(self, computed: Tensor, like: Tensor) -> Tensor:
        """Return what has been computed into `empty_step`, in the layout that ``empty_like(like)`` has."""
        if self.order is not None:
            computed = computed.permute(self.inverse())
        wanted = torch.empty_like(like, dtype=computed.dtype)
        return computed if computed.stride() == wanted.stride() else wanted.copy_(computed)

    def sequence_like(self, computed: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what has been computed into `empty`, in `dtype` and in the layout of the input."""
        if self.dense:
            return computed.to(dtype)
        return torch.empty_like(self.like, dtype=dtype).copy_(computed)

    def steps_sizes(self) -> Sequence[int]:
        """The sizes of a step in the order of memory."""
        return self.shape if self.order is None else [self.shape[d] for d in self.order]

    def inverse(self) -> list[int]:
        """The permutation that takes the order of memory to the order of the dimensions."""
        assert self.order is not None
        return sorted(range(len(self.order)), key=self.order.__getitem__)

    def sequence(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a sequence with its memory in the order of the input's."""
        tensor = tensor.to(dtype)
        if self.order is None:
            return tensor.contiguous()
        return tensor.permute(0, *(d + 1 for d in self.order)).contiguous()

    def step(self, tensor: Tensor) -> Tensor:
        """Return one step with its memory in the order of the input's."""
        return (tensor if self.order is None else tensor.permute(self.order)).contiguous()

    def parameter(self, value: Tensor) -> tuple[Tensor, int, int]:
        """Return the distinct values of a parameter in memory, `middle` and `inner` (see the module)."""
        if value.numel() == 1:
            return value, 1, 1
        sizes = [1] * (len(self.shape) - value.dim()) + list(value.shape)
        value = value.reshape(sizes)
        if self.order is not None:
            value = value.permute(self.order)
            sizes = list(value.shape)
        own = [d for d, size in enumerate(sizes) if size != 1]
        first, last = own[0], own[-1] + 1
        full = self.steps_sizes()
        if list(full[first:last]) != sizes[first:last]:
            value, first, last = value.expand(full), 0, len(sizes)
        return value.contiguous(), math.prod(full[first:last]), math.prod(full[last:])

    def reduce(self, lanes: Tensor, shape: torch.Size) -> Tensor:
        """Sum one value a neuron into a gradient of `shape`."""
        lanes = lanes.view(self.steps_sizes())
        if self.order is not None:
            lanes = lanes.permute(self.inverse())
        return lanes.sum_to_size(shape).contiguous()


def tensors(neuron: Leaky, p: Parameters) -> list[Tensor]:
    """Return the parameters in the order of the operator."""
    return [p[name] for name in neuron.parameters]


def pointer(tensor: Tensor | None) -> int:
    """Return where the memory of a tensor begins; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def given(tensor: Tensor) -> Tensor | None:
    """Return a gradient, or ``None`` for the empty one that stands for none."""
    return tensor if tensor.numel() else None
