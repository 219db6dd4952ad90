"""Which implementation runs an operator: visible, forceable, never silently another one.

``native`` (compiled C, `snn_ext.ops.native`) runs tensors on the CPU where it was compiled at installation,
``cupy`` (the same C as CUDA, `snn_ext.ops.cupy`) those on a CUDA device where CuPy is installed,
``reference`` (plain torch) everything else.  The environment variable ``SNN_EXT_IMPL`` forces one by name; a
name that is not available, or does not serve the device, is an error.
"""

from __future__ import annotations

import os
import warnings
from types import ModuleType

import torch

from . import cupy, native, reference

VARIABLE = "SNN_EXT_IMPL"
NAMES = ("reference", "native", "cupy")
_MODULES: dict[str, ModuleType] = {"reference": reference, "native": native, "cupy": cupy}
SERVES = {"native": "cpu", "cupy": "cuda"}
"""The kind of device that a compiled implementation serves; the reference serves all."""
_SPOKEN = {"cpu": "the CPU", "cuda": "CUDA"}
_warned = False


def why_not(name: str) -> str:
    """Return why the implementation `name` is not available here, or ``""`` if it is."""
    if name == "native":
        return native.why_not
    return cupy.why_not() if name == "cupy" else ""


def available() -> tuple[str, ...]:
    """Return the implementations that this installation has."""
    return tuple(name for name in NAMES if not why_not(name))


def implementation(device: torch.device | str = "cpu", wanted: str | None = None) -> str:
    """Return the name of the implementation that will run on `device`.

    ``SNN_EXT_IMPL`` decides if it is set, else `wanted`, else what is the fastest available.

    Raises
    ------
    RuntimeError
        ``SNN_EXT_IMPL`` or `wanted` names an implementation that this installation does not have, or one that
        does not run on `device`.
    """
    forced, kind = os.environ.get(VARIABLE) or wanted, torch.device(device).type
    if not forced:
        fastest = "native" if kind == "cpu" else "cupy" if kind == "cuda" else "reference"
        return "reference" if why_not(fastest) else fastest
    what = f"{VARIABLE}={forced!r}" if os.environ.get(VARIABLE) else f"the implementation {forced!r}"
    if forced in NAMES and (problem := why_not(forced)):
        raise RuntimeError(f"{what} is not available here: {problem}")
    if forced not in NAMES:
        raise RuntimeError(f"{what} is not available here; unset it, or use one of: {', '.join(available())}")
    serves = SERVES.get(forced, kind)
    if serves != kind:
        raise RuntimeError(f"{what} runs on {_SPOKEN[serves]}, not on {kind}; unset it, or use 'reference'")
    return forced


def choose(device: torch.device, wanted: str | None = None) -> ModuleType:
    """Return the module that runs an operator on `device`; says once if a faster one could not be had."""
    global _warned
    name = implementation(device, wanted)
    faster = {"cpu": "native", "cuda": "cupy"}.get(device.type)
    if name == "reference" and faster and not wanted and (problem := why_not(faster)) and not _warned:
        _warned = True
        warnings.warn(
            f"snn_ext runs on its reference, several times slower than its compiled kernel: {problem}",
            RuntimeWarning,
            stacklevel=2,
        )
    return _MODULES[name]
