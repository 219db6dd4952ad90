"""How native and CuPy kernels are called: flat memory, numbers for names, gradients summed.

A kernel sees the input as ``[steps, count]``: time, then neurons in the order in which memory holds them, so
that channels-last and other dense layouts cost no copy.  A parameter is given by its distinct values:
neuron `n` has number ``(n // inner) % middle``, which covers a scalar, one value per neuron, and one per
channel in any memory format.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..neurons.leaky import RESETS, Leaky, Parameters
from ..surrogate import Surrogate
from .gate import compute_dtype, settled, settled_grads

# The numbers that c/dynamics.h knows these by, and RESETS.
NEURONS = ("vsn", "lifb", "soft_reset_mpr")
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
    neuron: Leaky, surrogate: Surrogate, detach_reset: bool, reset_delay: bool, constant_start: bool
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
        bool(getattr(neuron, "mpr", False)),
    )


class Flat:
    """How the sequences of a call lie in memory, and back.

    Parameters
    ----------
    x_seq : Tensor, shape (T, *S)
        The input, whose layout the other sequences take.
    """

    def __init__(self, x_seq: Tensor) -> None:
        self.steps, *self.shape = x_seq.shape
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
        if self.order is None:
            return self.like.new_empty(self.shape, dtype=dtype)
        return torch.empty_like(self.like[0], dtype=dtype)

    def step_like(self, computed: Tensor, like: Tensor | None = None) -> Tensor:
        """Return what has been computed into `empty_step`, in the layout of ``empty_like(like)``.

        `like` is a step of the input, if it is left out.
        """
        if self.dense if like is None else self.order is None and like.is_contiguous():
            return computed
        wanted = torch.empty_like(self.like[0] if like is None else like, dtype=computed.dtype)
        return computed if computed.stride() == wanted.stride() else wanted.copy_(computed)

    def sequence_like(self, computed: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what has been computed into `empty`, in `dtype` and in the layout of the input."""
        if self.dense:
            return computed if computed.dtype == dtype else computed.to(dtype)
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
        if tensor.dtype != dtype:
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


class Parameter(NamedTuple):
    """A parameter as a kernel sees it: distinct values, where its gradient goes, who has which value."""

    values: Tensor
    gradient: Tensor | None
    middle: int
    inner: int


class Call(NamedTuple):
    """One forward or backward pass of a kernel: everything in flat memory, ``None`` where there is nothing.

    `block` neurons are computed together, in the backward pass `segment` steps at a time.  A parameter's
    gradient is one float64 for each block if it is a scalar, else one value for each neuron.
    """

    what: str
    dtype: torch.dtype
    steps: int
    neurons: int
    block: int
    segment: int
    numbers: Numbers
    parameter_grads: bool
    scale: float
    v_reset: float
    x: Tensor
    v0: Tensor | None
    y: Tensor | None = None
    v: Tensor | None = None
    v_seq: Tensor | None = None
    gy: Tensor | None = None
    gv: Tensor | None = None
    gv_seq: Tensor | None = None
    gx: Tensor | None = None
    gv0: Tensor | None = None
    parameters: Sequence[Parameter] = ()
    starts: Tensor | None = None
    sent: Tensor | None = None
    gsent: Tensor | None = None
    power: float = 1.0

    def packed(self, stream: bool = False) -> bytes:
        """Return the call as the C structure (c/call.h); with `stream`, it writes past the cache."""
        parameters: list[int] = []
        for value, gradient, middle, inner in self.parameters:
            parameters += value.data_ptr(), 0 if gradient is None else gradient.data_ptr(), middle, inner
        return _CALL.pack(
            *self[2:6],
            *self.numbers,
            self.parameter_grads,
            self.scale,
            self.v_reset,
            *[0 if tensor is None else tensor.data_ptr() for tensor in self[10:20]],
            *parameters,
            *_NO_PARAMETER * (PARAMETERS - len(self.parameters)),
            stream,
            *[0 if tensor is None else tensor.data_ptr() for tensor in self[21:24]],
            self.power,
        )


_FLAG = "?7x" if sys.byteorder == "little" else "7x?"  # whatever is given, 0 or 1 comes out
_CALL = struct.Struct("=8q" + _FLAG * 7 + "2d10Q" + "QQqq" * PARAMETERS + "qQQQd")
_NO_PARAMETER = (0, 0, 1, 1)


class Kernels(NamedTuple):
    """What an implementation has: how it runs a call, and how it divides the work.

    `blocks` gives neurons a block and steps a segment, from the pass, the number of steps and the bytes of a
    number; `half` says whether the kernels read and write half precisions, else sequences are converted.
    """

    run: Callable[[Call], None]
    blocks: Callable[[str, int, int], tuple[int, int]]
    half: bool

    def forward(
        self,
        neuron: Leaky,
        x_seq: Tensor,
        v0: Tensor | None,
        p: Parameters,
        surrogate: Surrogate,
        *,
        detach_reset: bool,
        reset_delay: bool,
        constant_start: bool,
        return_v_seq: bool,
        power: float = 0.0,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return what `reference.forward` does."""
        x_seq, v0, *values = settled(x_seq, v0, *[p[name] for name in neuron.parameters])
        flat, dtype = Flat(x_seq), compute_dtype(x_seq.dtype)
        wide = x_seq.dtype if self.half else dtype
        y, v = flat.empty(wide), flat.empty_step(dtype)
        v_seq = flat.empty(dtype) if return_v_seq else None
        sent = flat.empty_step(dtype) if power else None
        block, segment = self.blocks("forward", flat.steps, dtype.itemsize)
        parameters = []
        for value in values:
            value, middle, inner = flat.parameter(value)
            parameters.append(Parameter(value, None, middle, inner))
        self.run(
            Call(
                "forward",
                dtype,
                flat.steps,
                flat.count,
                block,
                segment,
                numbers(neuron, surrogate, detach_reset, reset_delay, constant_start),
                False,
                surrogate.scale,
                neuron.v_reset,
                flat.sequence(x_seq, wide),
                None if v0 is None else flat.step(v0),
                y=y,
                v=v,
                v_seq=v_seq,
                parameters=parameters,
                sent=sent,
                power=power,
            )
        )
        return (
            flat.sequence_like(y, x_seq.dtype),
            flat.step_like(v),
            None if v_seq is None else flat.sequence_like(v_seq, dtype),
            None if sent is None else flat.step_like(sent),
        )

    def backward(
        self,
        neuron: Leaky,
        grad_y_seq: Tensor,
        grad_v: Tensor | None,
        grad_v_seq: Tensor | None,
        x_seq: Tensor,
        v0: Tensor | None,
        p: Parameters,
        surrogate: Surrogate,
        *,
        detach_reset: bool,
        reset_delay: bool,
        constant_start: bool,
        wanted: Collection[str],
        power: float = 0.0,
        grad_sent: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return the gradients of `x_seq`, of `v0` if given, and of the parameters that are `wanted`."""
        x_seq, v0, *values = settled(x_seq, v0, *[p[name] for name in neuron.parameters])
        grad_y_seq, grad_v, grad_v_seq, grad_sent = settled_grads(grad_y_seq, grad_v, grad_v_seq, grad_sent)
        flat, dtype = Flat(x_seq), compute_dtype(x_seq.dtype)
        wide = x_seq.dtype if self.half else dtype
        block, segment = self.blocks("backward", flat.steps, dtype.itemsize)
        gx, gv0 = flat.empty(wide), None if v0 is None else flat.empty_step(dtype)
        count = -(-flat.count // block)
        sums = x_seq.new_empty((len(wanted), count), dtype=torch.float64) if wanted else None
        parameters: list[Parameter] = []
        scalars: list[str] = []
        for name, value in zip(neuron.parameters, values, strict=True):
            value, middle, inner = flat.parameter(value)
            gradient = None
            if name in wanted and middle == 1 and sums is not None:
                gradient = sums[len(scalars)]
                scalars.append(name)
            elif name in wanted:
                gradient = value.new_empty(flat.count)
            parameters.append(Parameter(value, gradient, middle, inner))
        given = grad_v_seq is not None and grad_v_seq.numel() > 0
        self.run(
            Call(
                "backward",
                dtype,
                flat.steps,
                flat.count,
                block,
                segment,
                numbers(neuron, surrogate, detach_reset, reset_delay, constant_start),
                bool(wanted),
                surrogate.scale,
                neuron.v_reset,
                flat.sequence(x_seq, wide),
                None if v0 is None else flat.step(v0),
                gy=flat.sequence(grad_y_seq, wide),
                gv=None if grad_v is None else flat.step(grad_v),
                gv_seq=flat.sequence(grad_v_seq, dtype) if given and grad_v_seq is not None else None,
                gx=gx,
                gv0=gv0,
                parameters=parameters,
                gsent=None if grad_sent is None else flat.step(grad_sent),
                power=power,
            )
        )
        grads = {}
        if scalars and sums is not None:
            totals = sums[: len(scalars)].sum(1).to(dtype)
            grads = {name: totals[i].clone().view(p[name].shape) for i, name in enumerate(scalars)}
        for name, parameter in zip(neuron.parameters, parameters, strict=True):
            if parameter.gradient is not None and parameter.middle != 1:
                grads[name] = flat.reduce(parameter.gradient, p[name].shape)
        grad_v0 = None if gv0 is None or v0 is None else flat.step_like(gv0, v0)
        return flat.sequence_like(gx, x_seq.dtype), grad_v0, grads
