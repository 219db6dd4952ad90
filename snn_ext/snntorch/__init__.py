"""The neurons as native snnTorch components: ``snn.Leaky``'s arguments, state and utilities."""

from ..observe import observe
from . import _compat  # noqa: F401  (first: it refuses an unsupported release)
from .decoupling import decouple
from .neurons import LIFB, VSN, SoftResetMPR, reset
from .nir import export_to_nir, install_guard
from .registration import register, unregister

install_guard()
del install_guard

__all__ = [
    "LIFB",
    "VSN",
    "SoftResetMPR",
    "decouple",
    "export_to_nir",
    "observe",
    "register",
    "reset",
    "unregister",
]
