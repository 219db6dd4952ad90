"""The demo's energy: what its networks of the saccades spend on a test image."""

from __future__ import annotations

from ..energy import EnergyReport, measure_energy
from .networks import Network
from .tasks import SACCADES, splits


def measure(network: Network, seed: int) -> EnergyReport:
    """Return what a network that was trained on the saccades of `seed` spends on their test images."""
    return measure_energy(network, [next(splits(SACCADES, seed)).x_test], progress=False)
