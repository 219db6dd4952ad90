"""ANN-to-SNN conversion with L4-norm weight adjustment; the frameworks' faces build on it.

A trained ReLU network is read (`snn_ext.conversion.graph`), its thresholds are balanced
(`snn_ext.conversion.balance`), its weights adjusted by their L4 norms (`snn_ext.conversion.weights`) and
scaled (`snn_ext.conversion.spiking`), and the offsets of its neurons fitted (`snn_ext.conversion.fit`).
"""

from ..coding import poisson
from .convert import Options
from .report import Report
from .weights import RULES, Adjustment, l4_adjust, l4_norm, noise_std

__all__ = ["RULES", "Adjustment", "Options", "Report", "l4_adjust", "l4_norm", "noise_std", "poisson"]
