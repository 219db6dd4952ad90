"""The neurons under snnTorch's own namespace, for projects that pick neurons by name."""

from __future__ import annotations

import snntorch

from .. import registration
from .neurons import LIFB, VSN, SoftResetMPR

__all__ = ["register", "unregister"]

_NEURONS = (VSN, LIFB, SoftResetMPR)


def register() -> None:
    """Make ``snntorch.VSN``, ``snntorch.LIFB`` and ``snntorch.SoftResetMPR`` this package's neurons.

    May be called again; `unregister` undoes it.

    Raises
    ------
    ValueError
        snnTorch has something else of that name; then nothing has been changed.

    Examples
    --------
    >>> import snntorch, snn_ext.snntorch
    >>> snn_ext.snntorch.register()
    >>> getattr(snntorch, "LIFB")(beta=0.9).burst_intensity.item()
    2.0
    >>> snn_ext.snntorch.unregister()
    """
    registration.add(snntorch, _NEURONS)


def unregister() -> None:
    """Undo `register`; neurons that exist go on working."""
    registration.remove(snntorch, _NEURONS)
