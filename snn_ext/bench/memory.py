"""Memory of a training step: what is kept for the backward pass, and the peak."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
        ctypes.CDLL(None).malloc_trim(0)  # so that freed memory does not count as being there before
        _CLEAR.write_text("5")  # the peak begins anew
    except (AttributeError, OSError):
        return None
    before = _status("VmRSS")
    step()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
