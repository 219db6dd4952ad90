"""The neurons as native SpikingJelly components: ``LIFNode``'s arguments, memories and step modes."""

from ..graded import events, guard
from ..observe import observe
from . import _compat  # noqa: F401  (first: it refuses an unsupported release)
from .conversion import Converter, L4Recipe, accuracy_curve, conversion_report, multi_step
from .counters import ac_rules, as_native, estimate_simple_energy, mac_rules, state_rules, synop_rules
from .decoupling import decouple
from .energy import BalancedSpikePenalty, SynapticPenalty, TotalSpikePenalty
from .graded import GUARDED
from .neurons import LIFBNode, SoftResetMPRNode, VSNNode
from .nir import export_to_nir
from .registration import register, unregister

guard(GUARDED)
del GUARDED, guard

__all__ = [
    "BalancedSpikePenalty",
    "Converter",
    "L4Recipe",
    "LIFBNode",
    "SoftResetMPRNode",
    "SynapticPenalty",
    "TotalSpikePenalty",
    "VSNNode",
    "ac_rules",
    "accuracy_curve",
    "as_native",
    "conversion_report",
    "decouple",
    "estimate_simple_energy",
    "events",
    "export_to_nir",
    "mac_rules",
    "multi_step",
    "observe",
    "register",
    "state_rules",
    "synop_rules",
    "unregister",
]
