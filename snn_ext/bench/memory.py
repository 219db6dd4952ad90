"""Memory of a training step: what is kept for the backward pass, and the peak."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..terminal import answered
from .cases import cases, forced, step

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # as malloc.h has them
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_freed() -> bool:
    """Let the process keep the memory that it frees, and say whether it does (as glibc can, on Linux).

    Else that goes back to the system now and then, and whoever asks for memory next waits for fresh pages:
    this takes as long as the arithmetic, and strikes by chance.  Programs get the same from the environment
    variables ``MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_MMAP_MAX_=0``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))


def saved(run: Callable[[Tensor], Tensor], x_seq: Tensor) -> int:
    """Return the bytes that autograd keeps for the backward pass: all memory that its saved tensors hold."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # so that no memory is counted for two tensors in turn
        return tensor

    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(x_seq)
    return sum(held.values())


def measured(
    framework: str, steps: int, neurons: int, device: torch.device
) -> list[tuple[tuple[str, str, str], int, int | None]]:
    """Return for each case what is kept and the peak, taken in a process of its own.

    There, memory goes back to the system as soon as it is freed, so that what an allocator keeps for later
    does not count.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    for name in before:
        del os.environ[name]
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    try:
        return apart(_measured, framework, steps, neurons, device, torch.get_num_threads())
    finally:
        del os.environ["MALLOC_MMAP_THRESHOLD_"]
        os.environ.update(before)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` returns in a process of its own, which an interrupt ends without a word."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        with answered(signal.SIGINT, signal.SIG_IGN):  # a process that is started meanwhile does so for good
            found = process.submit(function, *arguments)
        try:
            return found.result()
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _measured(
    framework: str, steps: int, neurons: int, device: torch.device, threads: int
) -> list[tuple[tuple[str, str, str], int, int | None]]:
    torch.set_num_threads(threads)
    x_seq = torch.randn(steps, neurons, device=device).requires_grad_()
    grad = torch.randn(steps, neurons, device=device)
    found = []
    for case in cases(framework, steps, device):
        with forced(case.implementation):
            kept, most = saved(case.run, x_seq), peak(step(case.run, x_seq, grad), device)
        found.append(((case.name, case.framework, case.implementation), kept, most))
    return found


def peak(step: Callable[[], None], device: torch.device) -> int | None:
    """Return the bytes that a step has at its peak beyond what was there before; ``None`` if not to be told.

    On CUDA as torch's allocator counts them, on the CPU as Linux counts resident memory.
    """
    step()
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    if not sys.platform.startswith("linux") or not _CLEAR.exists():
        return None
    try:
        _CLEAR.write_text("5")  # the peak begins anew
    except OSError:
        return None
    before = _status("VmRSS")
    step()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
