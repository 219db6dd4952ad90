"""SpikingJelly's face of energy: its spiking layers, and penalties with the words of its monitors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based import base, functional, neuron
from torch import Tensor, nn

from .. import energy
from ..energy.layers import Layer
from ..energy.penalties import Penalty
from ._base import LeakyNode
from .conversion import SpikeCountMaxPool
from .neurons import LIFBNode, VSNNode

__all__ = ["BalancedSpikePenalty", "SynapticPenalty", "TotalSpikePenalty"]

_NEURONS = tuple(
    getattr(neuron, name)
    for name in (
        "BaseNode",
        "SimpleBaseNode",
        "DSRIFNode",
        "DSRLIFNode",
        "GatedLIFNode",
        "PSN",
        "MaskedPSN",
        "SlidingPSN",
        "STBIFNode",
        "ActivationAwareIFNode",
    )
    if hasattr(neuron, name)
)
_SIGNED = tuple(
    getattr(neuron, name)
    for name in ("TernaryIFNode", "TernaryLIFNode", "STBIFNode")
    if hasattr(neuron, name)
)
_VALUED = tuple(getattr(neuron, name) for name in ("LIAFNode",) if hasattr(neuron, name))


STATES = ("_memories",)
"""Attributes of modules, dictionaries, in which states are kept."""


class _Layer(Layer):
    """A spiking layer of SpikingJelly."""

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, module)
        self.own = isinstance(module, LeakyNode)
        self.graded, self.bursts = isinstance(module, VSNNode), isinstance(module, LIFBNode)
        self.binary = getattr(getattr(module, "surrogate_function", None), "spiking", False) is True

    @property
    def leading(self) -> int:  # type: ignore[override]
        return 2 if getattr(self.module, "step_mode", "m") == "m" else 1

    def fresh(self) -> bool:
        memories: dict[str, Any] = getattr(self.module, "_memories", {})
        state = memories.get("v", next(iter(memories.values()), None))
        return bool(memories) and not isinstance(state, Tensor)

    def refuse(self) -> str:
        if isinstance(self.module, _SIGNED):
            return "emits negative spikes, which are not counted"
        if isinstance(self.module, _VALUED):
            return "emits analogue values, which are no spikes"
        return super().refuse()


def describe(name: str, module: nn.Module) -> Layer | None:
    """Return `module` as a spiking layer, if it is one of SpikingJelly."""
    return _Layer(name, module) if isinstance(module, _NEURONS) else None


def pooling(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return the pooling of the ANN behind a `SpikeCountMaxPool`, or nothing."""
    if not isinstance(module, SpikeCountMaxPool):
        return None
    if module.step_mode == "s":
        return module.pool
    return lambda x_seq: functional.seq_to_ann_forward(x_seq, module.pool)


def reset_states(net: nn.Module) -> None:
    """Reset `net` as SpikingJelly does."""
    if any(isinstance(module, base.MemoryModule) for module in net.modules()):
        functional.reset_net(net)


class _Monitor(Penalty):
    """The words of SpikingJelly's monitors: ``reset_net`` clears, as do these."""

    def clear_recorded_data(self) -> None:
        """Forget what has run since the last call."""
        self.clear()

    def remove_hooks(self) -> None:
        """Watch the network no longer."""
        self.remove()


class SynapticPenalty(_Monitor, energy.SynapticPenalty):
    """`snn_ext.energy.SynapticPenalty` with the words of a monitor; ``functional.reset_net`` clears it.

    Examples
    --------
    ::

        saving = snn_ext.energy.Weighted(SynapticPenalty(net, x_seq[:, :1]))
        for x_seq, labels in loader:
            task = cross_entropy(net(x_seq).mean(0), labels)
            loss = task + saving(task)
            ...
            functional.reset_net(net)
    """


class TotalSpikePenalty(_Monitor, energy.TotalSpikePenalty):
    """`snn_ext.energy.TotalSpikePenalty` with the words of a monitor; see `SynapticPenalty`."""


class BalancedSpikePenalty(_Monitor, energy.BalancedSpikePenalty):
    """`snn_ext.energy.BalancedSpikePenalty` with the words of a monitor; see `SynapticPenalty`."""
