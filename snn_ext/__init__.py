"""Published spiking-neuron methods as native components of snnTorch and SpikingJelly.

``snn_ext.functional`` and ``snn_ext.surrogate`` need no framework; ``snn_ext.snntorch`` and
``snn_ext.spikingjelly`` are the two faces, each importing only its own framework.
"""

from . import functional, surrogate

__version__ = "0.2.0"
__all__ = ["__version__", "functional", "surrogate"]


def __getattr__(name: str) -> object:
    """Say where a public name of the package is, without importing a framework."""
    from ._places import where

    raise AttributeError(where(name) or f"module {__name__!r} has no attribute {name!r}", name=name)
