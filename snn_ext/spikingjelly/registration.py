"""The neurons under SpikingJelly's own namespace and registries, for projects that pick them by name."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import neuron

from .. import registration
from .neurons import LIFBNode, SoftResetMPRNode, VSNNode

__all__ = ["register", "unregister"]

_NEURONS = (VSNNode, LIFBNode, SoftResetMPRNode)


def register() -> None:
    """Make ``spikingjelly.activation_based.neuron.VSNNode``, ``.LIFBNode`` and ``.SoftResetMPRNode`` ours.

    Where SpikingJelly has a registry of neuron classes (2.0's ``distributed.vision.config``) they are
    registered there too, so that a ``NeuronConfig`` may name them by their full path, e.g.
    ``"snn_ext.spikingjelly.neurons.LIFBNode"``.  May be called again; `unregister` undoes it.

    Raises
    ------
    ValueError
        SpikingJelly has something else of that name; then nothing has been changed.

    Examples
    --------
    >>> from spikingjelly.activation_based import neuron
    >>> import snn_ext.spikingjelly
    >>> snn_ext.spikingjelly.register()
    >>> getattr(neuron, "LIFBNode")().burst_intensity.item()
    2.0
    >>> snn_ext.spikingjelly.unregister()
    """
    registration.add(neuron, _NEURONS)
    config = _vision_config()
    if config is not None:
        for cls in _NEURONS:
            config.register_neuron_class(cls)


def unregister() -> None:
    """Undo `register`; neurons that exist go on working."""
    registration.remove(neuron, _NEURONS)
    config = _vision_config()
    for cls in _NEURONS if config is not None else ():
        registry = config._NEURON_REGISTRY  # SpikingJelly has no public way to take a class out
        if registry.get(config._class_path(cls)) is cls:
            del registry[config._class_path(cls)]


def _vision_config() -> Any:
    """Return SpikingJelly's registry module, or None where there is none."""
    try:
        from spikingjelly.activation_based.distributed.vision import config
    except ImportError:
        return None
    return config
