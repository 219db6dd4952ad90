"""The CuPy implementation: the C core (`snn_ext/ops/c`) as CUDA text, compiled by NVRTC at first use.

One kernel for each kind of neuron and precision, cached by CuPy on disk; launched on torch's current stream,
on torch's memory.  `source` and `options` are what is compiled; that takes no GPU.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import calls

THREADS = 256
"""Threads of a block, which sums the gradients of scalar parameters; as in kernel.cu."""
SEGMENT = 32
"""Steps whose potentials a thread keeps in the backward pass; as in kernel.cu."""

_HALF = {torch.float16: 1, torch.bfloat16: 2}


def why_not() -> str:
    """Return why the kernels cannot run here, or ``""`` if they can."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return _missing()


@functools.cache
def _missing() -> str:
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed; add it with: pip install 'snn-ext[cupy]'"
    try:
        importlib.import_module("cupy")
    except Exception as error:  # whatever CuPy finds wrong with this machine
        return f"CuPy cannot be used: {type(error).__name__}: {error}"
    return ""


@functools.cache
def source() -> str:
    """Return the text of the kernels, with what it includes."""
    folder = Path(__file__).parent / "c"
    text = (folder / "kernel.cu").read_text()
    for name in ("call.h", "dynamics.h"):
        text = text.replace(f'#include "{name}"\n', (folder / name).read_text())
    return text


def options(neuron: int, reset: int, mpr: bool, state: torch.dtype, sequence: torch.dtype) -> tuple[str, ...]:
    """Return what the compiler is told of a kind of neuron and the dtypes of its state and its sequences."""
    return (
        "--std=c++14",
        "--fmad=false",  # the same roundings as torch: spikes are equal to the last bit
        f"-DKIND_NEURON={neuron}",
        f"-DKIND_RESET={reset}",
        f"-DKIND_MPR={int(mpr)}",
        f"-DDOUBLE={int(state == torch.float64)}",
        f"-DHALF={_HALF.get(sequence, 0)}",
    )


@functools.cache
def _kernel(what: str, *kind: Any) -> Any:
    cupy: Any = importlib.import_module("cupy")
    return cupy.RawModule(code=source(), options=options(*kind)).get_function(f"snn_ext_{what}")


def blocks(what: str, steps: int, size: int) -> tuple[int, int]:
    """Return neurons a block and steps a segment."""
    return THREADS, SEGMENT


def prepared(call: calls.Call) -> tuple[calls.Call, int]:
    """Return the call with the memory that its kernel needs, and the number of blocks."""
    if call.what == "backward" and call.steps > SEGMENT:
        segments = -(-call.steps // SEGMENT)
        call = call._replace(starts=call.x.new_empty((segments - 1, call.neurons), dtype=call.dtype))
    return call, -(-call.neurons // THREADS)


def run(call: calls.Call) -> None:
    """Launch a kernel on torch's current stream."""
    if call.neurons == 0:
        return
    cupy: Any = importlib.import_module("cupy")
    device, numbers = call.x.device, call.numbers
    call, grid = prepared(call)
    kernel = _kernel(call.what, numbers.neuron, numbers.reset, numbers.mpr, call.dtype, call.x.dtype)
    stream = torch.cuda.current_stream(device)
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(stream.cuda_stream, device.index):
        kernel((grid,), (THREADS,), (np.frombuffer(call.packed(), np.uint8),))


_kernels = calls.Kernels(run, blocks, half=True)
forward, backward = _kernels.forward, _kernels.backward
