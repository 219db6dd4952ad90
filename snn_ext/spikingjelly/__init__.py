"""The neurons as native SpikingJelly components: ``LIFNode``'s arguments, memories and step modes."""

from ..observe import observe
from . import _compat  # noqa: F401  (first: it refuses an unsupported release)
from .conversion import Converter, L4Recipe, accuracy_curve, conversion_report, multi_step
from .decoupling import decouple
from .energy import BalancedSpikePenalty, SynapticPenalty, TotalSpikePenalty
from .neurons import LIFBNode, SoftResetMPRNode, VSNNode
from .nir import export_to_nir
from .registration import register, unregister

__all__ = [
    "BalancedSpikePenalty",
    "Converter",
    "L4Recipe",
    "LIFBNode",
    "SoftResetMPRNode",
    "SynapticPenalty",
    "TotalSpikePenalty",
    "VSNNode",
    "accuracy_curve",
    "conversion_report",
    "decouple",
    "export_to_nir",
    "multi_step",
    "observe",
    "register",
    "unregister",
]
