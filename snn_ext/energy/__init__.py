"""Energy: synapses counted exactly, penalties that train for few operations, a report of what is spent."""

from .penalties import BalancedSpikePenalty, SpikingActivityLoss, SynapticPenalty, TotalSpikePenalty
from .report import EnergyReport, EnergyReports, measure_energy
from .schedules import ConstantLambda, LinearRamp, Weighted, WhenLearning
from .synapses import fan_out

__all__ = [
    "BalancedSpikePenalty",
    "ConstantLambda",
    "EnergyReport",
    "EnergyReports",
    "LinearRamp",
    "SpikingActivityLoss",
    "SynapticPenalty",
    "TotalSpikePenalty",
    "Weighted",
    "WhenLearning",
    "fan_out",
    "measure_energy",
]
