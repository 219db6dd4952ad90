"""The neurons as native snnTorch components: ``snn.Leaky``'s arguments, state and utilities."""

from .neurons import VSN, reset
from .nir import install_guard

install_guard()
del install_guard

__all__ = ["VSN", "reset"]
