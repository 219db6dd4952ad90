"""``snn-ext demo``: small networks of native layers, native LIF neurons and ours, on real data."""

from .run import run

__all__ = ["run"]
