"""The neurons as native SpikingJelly components: ``LIFNode``'s arguments, memories and step modes."""

from ..observe import observe
from . import _compat  # noqa: F401  (first: it refuses an unsupported release)
from .decoupling import decouple
from .neurons import LIFBNode, SoftResetMPRNode, VSNNode
from .nir import export_to_nir
from .registration import register, unregister

__all__ = [
    "LIFBNode",
    "SoftResetMPRNode",
    "VSNNode",
    "decouple",
    "export_to_nir",
    "observe",
    "register",
    "unregister",
]
