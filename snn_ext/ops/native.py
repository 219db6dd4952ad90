"""The native implementation: the C core (`snn_ext/ops/c`) on the CPU, through ``ctypes``.

The calls release the interpreter lock.  Large ones are shared by ``torch.get_num_threads()`` threads: those
that torch has, where its OpenMP can be reached (threads of our own would contend with them, for they go on
spinning for a while after each of torch's operations), else some that the call starts.  It returns when they
are done, so that no interrupt comes between them and the memory that they write.  Which neurons form a block
does not depend on the number of threads, so neither do the results.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import calls

BLOCK = 256
"""Neurons that are computed together at most; a multiple of every vector length."""
SCRATCH = 2**18
"""Bytes that the potentials of a block may fill in the backward pass, while a block can be made smaller."""
STREAM = 2**23
"""Bytes of a sequence from which on it is written past the cache."""
GRAIN = 2**15
"""Neurons times steps that are worth a thread."""

LIBRARY = "SNN_EXT_NATIVE"
"""An environment variable that names another build of the library, say with sanitizers."""

_NO_MEMORY = 1  # a status of c/cpu.c

_Pointer, _Int64 = ctypes.c_void_p, ctypes.c_int64


def _load() -> tuple[ctypes.CDLL | None, str]:
    """Return the compiled library, or why there is none."""
    folder = Path(__file__).parent
    paths = [folder / f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    if forced := os.environ.get(LIBRARY):
        paths = [Path(forced)]
    path = next((path for path in paths if path.exists()), None)
    if path is None and forced:
        return None, f"{LIBRARY}={forced} does not exist; unset it, or build that library"
    if path is None:
        return None, "it was not compiled at installation; install a C compiler and snn-ext again"
    try:
        library = ctypes.CDLL(str(path))
        for name in _NAMES.values():
            function = getattr(library, name)
            function.argtypes, function.restype = (ctypes.c_char_p, _Int64, _Int64), ctypes.c_int
        share = library.snn_ext_share
        share.argtypes = (_Pointer, _Pointer, ctypes.c_char_p, _Int64, ctypes.c_uint)
    except (OSError, AttributeError) as error:
        return None, f"{path.name} cannot be loaded ({error}); install snn-ext again"
    return library, ""


def _find_openmp() -> Any:
    """Return how the threads that torch has are entered, ``None`` if they cannot be reached."""
    try:
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, _Pointer)
    except (OSError, AttributeError):
        return None


_NAMES = {
    (what, dtype): f"snn_ext_{what}_{suffix}"
    for what in ("forward", "backward")
    for dtype, suffix in ((torch.float32, "f32"), (torch.float64, "f64"))
}
_library, why_not = _load()
"""The compiled library, or the reason if there is none."""
_functions = {} if _library is None else {key: getattr(_library, name) for key, name in _NAMES.items()}
_openmp = _find_openmp()


def blocks(what: str, steps: int, size: int) -> tuple[int, int]:
    """Return neurons a block and steps a segment for a pass, for numbers of `size` bytes.

    In the backward pass a block keeps two rows of potentials for each step of a segment and one for each
    segment; the longer the sequence, the fewer neurons it has, so that these rows stay in the cache.
    """
    if what == "forward":
        return BLOCK, steps
    segment = steps if steps <= 64 else max(32, math.isqrt(steps - 1) + 1)
    rows = 2 * segment + -(-steps // segment)
    block = BLOCK
    while block > 16 and block * rows * size > SCRATCH:
        block //= 2
    return block, segment


def run(call: calls.Call, threads: int = 0) -> None:
    """Compute all neurons of a call, in as many threads as torch has if not in `threads`."""
    packed = call.packed(stream=call.steps * call.neurons * call.dtype.itemsize >= STREAM)
    function, count, block = _functions[call.what, call.dtype], call.neurons, call.block
    threads = min(threads or torch.get_num_threads(), call.steps * count // GRAIN, -(-count // block))
    if threads <= 1:
        status = function(packed, 0, count) if count else 0
    else:
        chunk = -(-count // (4 * threads * block)) * block
        assert _library is not None
        status = _library.snn_ext_share(_openmp, function, packed, chunk, threads)
    if status == _NO_MEMORY:
        raise MemoryError(f"snn_ext: no memory for the {call.what} pass of {count} neurons")
    if status:
        raise ValueError(f"snn_ext: the compiled kernels do not know {call.numbers}; install snn-ext again")


_kernels = calls.Kernels(run, blocks, half=False)
forward: Callable[..., Any] = _kernels.forward
backward: Callable[..., Any] = _kernels.backward


def _in_child(what: str, *arguments: Any, **options: Any) -> Any:
    """Run a pass in a forked child, where torch's OpenMP may wait for threads that were left behind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kernels = _kernels._replace(run=functools.partial(run, threads=threads))
        return getattr(kernels, what)(*arguments, **options)
    finally:
        torch.set_num_threads(threads)


def _forget() -> None:
    """Threads do not survive a fork, and OpenMP does not start others."""
    global _openmp, forward, backward
    _openmp = None
    forward, backward = functools.partial(_in_child, "forward"), functools.partial(_in_child, "backward")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
