"""Which implementation runs an operator: visible, forceable, never silently another one.

There is one implementation so far, ``reference``: plain torch, tested on the CPU only.  The environment
variable ``SNN_EXT_IMPL`` forces one by name; a name that is not available is an error.
"""

from __future__ import annotations

import os

import torch

VARIABLE = "SNN_EXT_IMPL"
AVAILABLE = ("reference",)


def implementation(device: torch.device | str = "cpu") -> str:
    """Return the name of the implementation that will run on `device`.

    Raises
    ------
    RuntimeError
        ``SNN_EXT_IMPL`` names an implementation that this installation does not have.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced and forced not in AVAILABLE:
        raise RuntimeError(
            f"{VARIABLE}={forced!r} is not available here; unset it, or use one of: {', '.join(AVAILABLE)}"
        )
    return forced or "reference"
