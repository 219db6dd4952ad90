"""Which implementation runs an operator: visible, forceable, never silently another one.

``native`` (compiled C, `snn_ext.ops.native`) runs tensors on the CPU where it was compiled at installation,
``reference`` (plain torch) everything else.  The environment variable ``SNN_EXT_IMPL`` forces one by name; a
name that is not available, or does not serve the device, is an error.
"""

from __future__ import annotations

import os
import warnings
from types import ModuleType

import torch

from . import native, reference

VARIABLE = "SNN_EXT_IMPL"
NAMES = ("reference", "native")
_MODULES: dict[str, ModuleType] = {"reference": reference, "native": native}
_warned = False


def available() -> tuple[str, ...]:
    """Return the implementations that this installation has."""
    return NAMES if not native.why_not else ("reference",)


def implementation(device: torch.device | str = "cpu") -> str:
    """Return the name of the implementation that will run on `device`.

    Raises
    ------
    RuntimeError
        ``SNN_EXT_IMPL`` names an implementation that this installation does not have, or one that does not
        run on `device`.
    """
    forced, kind = os.environ.get(VARIABLE, ""), torch.device(device).type
    if not forced:
        return "native" if kind == "cpu" and not native.why_not else "reference"
    if forced == "native" and native.why_not:
        raise RuntimeError(f"{VARIABLE}={forced!r} is not available here: {native.why_not}")
    if forced not in NAMES:
        raise RuntimeError(
            f"{VARIABLE}={forced!r} is not available here; unset it, or use one of: {', '.join(available())}"
        )
    if forced == "native" and kind != "cpu":
        raise RuntimeError(
            f"{VARIABLE}={forced!r} runs on the CPU, not on {kind}; unset it, or use 'reference'"
        )
    return forced


def choose(device: torch.device) -> ModuleType:
    """Return the module that runs an operator on `device`; says once if a faster one could not be had."""
    global _warned
    name = implementation(device)
    if name == "reference" and device.type == "cpu" and native.why_not and not _warned:
        _warned = True
        warnings.warn(
            f"snn_ext runs on its reference, several times slower than its compiled kernel: {native.why_not}",
            RuntimeWarning,
            stacklevel=2,
        )
    return _MODULES[name]
