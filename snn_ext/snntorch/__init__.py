"""The neurons as native snnTorch components: ``snn.Leaky``'s arguments, state and utilities."""

from ..graded import events, guard
from ..observe import observe
from . import _compat  # noqa: F401  (first: it refuses an unsupported release)
from .conversion import accuracy_curve, conversion_report, convert, multi_step
from .counters import register_neurobench, unregister_neurobench
from .decoupling import decouple
from .energy import balanced_spike_reg, synaptic_reg, total_spike_reg
from .graded import GUARDED
from .neurons import LIFB, VSN, SoftResetMPR, reset
from .nir import export_to_nir, install_guard
from .registration import register, unregister

install_guard()
guard(GUARDED)
del GUARDED, guard, install_guard

__all__ = [
    "LIFB",
    "VSN",
    "SoftResetMPR",
    "accuracy_curve",
    "balanced_spike_reg",
    "conversion_report",
    "convert",
    "decouple",
    "events",
    "export_to_nir",
    "multi_step",
    "observe",
    "register",
    "register_neurobench",
    "reset",
    "synaptic_reg",
    "total_spike_reg",
    "unregister",
    "unregister_neurobench",
]
