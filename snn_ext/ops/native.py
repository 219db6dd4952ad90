"""The native implementation: the C core (`snn_ext/ops/c`) on the CPU, through ``ctypes``.

The calls release the interpreter lock, and large ones are shared by a small pool of threads that follows
``torch.get_num_threads()``.  Which neurons form a block does not depend on the number of threads, so neither
do the results.
"""

from __future__ import annotations

import collections
import ctypes
import importlib.machinery
import itertools
import math
import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..neurons.leaky import Leaky, Parameters
from ..surrogate import Surrogate
from . import calls

BLOCK = 1024
"""Neurons that are computed together at most; a multiple of every vector length."""
SCRATCH = 2**18
"""Bytes that the potentials of a block may fill in the backward pass, while a block can be made smaller."""
GRAIN = 2**15
"""Neurons times steps that are worth a thread."""

_CALL = struct.Struct("=15q2d10Q" + "QQqq" * calls.PARAMETERS)


def _load() -> tuple[dict[tuple[str, torch.dtype], Any], str]:
    """Return the compiled functions, and why there are none, if so."""
    folder = Path(__file__).parent
    paths = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        return {}, "it was not compiled at installation; install a C compiler and snn-ext again"
    try:
        library = ctypes.CDLL(str(path))
        functions = {}
        for what, (suffix, dtype) in itertools.product(
            ("forward", "backward"), (("f32", torch.float32), ("f64", torch.float64))
        ):
            function = getattr(library, f"snn_ext_{what}_{suffix}")
            function.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
            function.restype = ctypes.c_int
            functions[what, dtype] = function
    except (OSError, AttributeError) as error:
        return {}, f"{path.name} cannot be loaded ({error}); install snn-ext again"
    return functions, ""


_functions, why_not = _load()
"""The compiled functions by name and dtype, and a reason if there are none."""


def blocks(steps: int, size: int) -> tuple[int, int]:
    """Return neurons a block and steps a segment for the backward pass, for numbers of `size` bytes.

    A block keeps one row of potentials for each step of a segment and one for each segment; the longer the
    sequence, the fewer neurons it has, so that these rows stay in the cache.
    """
    segment = steps if steps <= 64 else max(32, math.isqrt(steps - 1) + 1)
    rows = segment + -(-steps // segment)
    block = BLOCK
    while block > 16 and block * rows * size > SCRATCH:
        block //= 2
    return block, segment


def forward(
    neuron: Leaky,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool,
    return_v_seq: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the emitted sequence, the final potential and, if asked, the potential sequence."""
    dtype, flat = v0.dtype, calls.Flat(x_seq)
    y_seq, v = flat.empty(dtype), flat.empty_step(dtype)
    v_seq = flat.empty(dtype) if return_v_seq else None
    x, start = flat.sequence(x_seq, dtype), flat.step(v0)
    values = [flat.parameter(value) for value in calls.tensors(neuron, p)]
    packed = _CALL.pack(
        flat.steps,
        flat.count,
        BLOCK,
        flat.steps,
        *calls.numbers(
            neuron,
            surrogate,
            detach_reset=detach_reset,
            reset_delay=reset_delay,
            constant_start=constant_start,
        ),
        False,
        surrogate.scale,
        neuron.v_reset,
        *map(calls.pointer, (x, start, y_seq, v, v_seq, None, None, None, None, None)),
        *_parameters(values, ()),
    )
    _run("forward", dtype, packed, flat, BLOCK, (x, start, y_seq, v, v_seq, values))
    return (
        flat.sequence_like(y_seq, x_seq.dtype),
        flat.step_like(v, x_seq[0]),
        x_seq.new_empty(0, dtype=dtype) if v_seq is None else flat.sequence_like(v_seq, dtype),
    )


def backward(
    neuron: Leaky,
    grad_y_seq: Tensor,
    grad_v: Tensor,
    grad_v_seq: Tensor,
    x_seq: Tensor,
    v0: Tensor,
    p: Parameters,
    surrogate: Surrogate,
    *,
    detach_reset: bool,
    reset_delay: bool,
    constant_start: bool,
    parameter_grads: bool,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the gradients of `x_seq`, `v0` and of each parameter (zeros if not `parameter_grads`)."""
    dtype, flat = v0.dtype, calls.Flat(x_seq)
    block, segment = blocks(flat.steps, dtype.itemsize)
    gx, gv0 = flat.empty(dtype), flat.empty_step(dtype)
    x, start, gy = flat.sequence(x_seq, dtype), flat.step(v0), flat.sequence(grad_y_seq, dtype)
    gv, gv_seq = flat.step(grad_v), calls.given(grad_v_seq)
    gv_seq = None if gv_seq is None else flat.sequence(gv_seq, dtype)
    values = [flat.parameter(value) for value in calls.tensors(neuron, p)]
    sums: list[Tensor] = []
    if parameter_grads:
        number = -(-flat.count // block)
        sums = [
            x.new_empty(number, dtype=torch.float64) if middle == 1 else x.new_empty(flat.count)
            for _, middle, _ in values
        ]
    packed = _CALL.pack(
        flat.steps,
        flat.count,
        block,
        segment,
        *calls.numbers(
            neuron,
            surrogate,
            detach_reset=detach_reset,
            reset_delay=reset_delay,
            constant_start=constant_start,
        ),
        parameter_grads,
        surrogate.scale,
        neuron.v_reset,
        *map(calls.pointer, (x, start, None, None, None, gy, gv, gv_seq, gx, gv0)),
        *_parameters(values, sums),
    )
    _run("backward", dtype, packed, flat, block, (x, start, gy, gv, gv_seq, gx, gv0, values, sums))
    grad_p = {}
    for k, name in enumerate(neuron.parameters):
        value = p[name]
        if not parameter_grads:
            grad_p[name] = torch.zeros_like(value)
        elif values[k][1] == 1:
            grad_p[name] = sums[k].sum().to(dtype).view(value.shape)
        else:
            grad_p[name] = flat.reduce(sums[k], value.shape)
    return flat.sequence_like(gx, x_seq.dtype), flat.step_like(gv0, v0), grad_p


def _parameters(values: list[tuple[Tensor, int, int]], sums: Any) -> list[int]:
    packed = []
    for value, total in itertools.zip_longest(values, sums):
        packed += [value[0].data_ptr(), calls.pointer(total), value[1], value[2]]
    return packed + [0, 0, 1, 1] * (calls.PARAMETERS - len(values))


def _run(what: str, dtype: torch.dtype, packed: bytes, flat: calls.Flat, block: int, keep: Any) -> None:
    """Compute all neurons of a call; `keep` holds the tensors that it points to."""
    function, count = _functions[what, dtype], flat.count
    threads = min(torch.get_num_threads(), flat.steps * count // GRAIN, -(-count // block))
    if threads <= 1:
        status = function(packed, 0, count) if count else 0
    else:
        chunk = -(-count // (4 * threads * block)) * block

        def work(begin: int, end: int) -> int:
            assert keep  # held for as long as a thread computes
            return function(packed, begin, end)

        ranges = collections.deque((begin, min(begin + chunk, count)) for begin in range(0, count, chunk))
        status = _share(ranges, work, threads)
    if status:
        raise MemoryError(f"snn_ext: no memory for the {what} pass of {count} neurons")


_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


def _share(ranges: collections.deque[tuple[int, int]], work: Callable[[int, int], int], threads: int) -> int:
    """Do `work` on all `ranges` in this thread and in ``threads - 1`` others; return the largest status."""

    def drain() -> int:
        worst = 0
        while True:
            try:
                begin, end = ranges.popleft()
            except IndexError:
                return worst
            worst = max(worst, work(begin, end))

    helpers = _submit(drain, threads - 1)
    try:
        worst = drain()
    finally:  # nobody may go on writing to memory that is given back
        ranges.clear()
        worst_helper = max([helper.result() for helper in helpers if not helper.cancel()], default=0)
    return max(worst, worst_helper)


def _submit(task: Callable[[], int], times: int) -> list[Future[int]]:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < times:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool, _pool_size = ThreadPoolExecutor(times, thread_name_prefix="snn_ext"), times
        helpers: list[Future[int]] = []
        try:
            while len(helpers) < times:
                helpers.append(_pool.submit(task))
        except RuntimeError:  # no more threads can be started; those that were will do
            pass
        return helpers


def _forget() -> None:
    """Threads do not survive a fork."""
    global _pool, _pool_size, _pool_lock
    _pool, _pool_size, _pool_lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
