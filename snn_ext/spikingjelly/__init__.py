"""The neurons as native SpikingJelly components: ``LIFNode``'s arguments, memories and step modes."""

from .neurons import VSNNode

__all__ = ["VSNNode"]
