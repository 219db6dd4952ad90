"""snnTorch's face of energy: its spiking layers, and penalties in the style of its ``functional.reg``."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from ..energy import BalancedSpikePenalty, SynapticPenalty, TotalSpikePenalty, Weighted
from ..energy.layers import Layer
from ..energy.penalties import Penalty
from ..energy.schedules import Weight, check_lambda
from ._base import Neuron, _number
from .conversion import SpikeCountMaxPool
from .decoupling import DecoupledLIFB
from .neurons import LIFB, VSN, reset

__all__ = ["balanced_spike_reg", "synaptic_reg", "total_spike_reg"]

_SEQUENCES = tuple(
    getattr(snn, name) for name in ("StateLeaky", "LinearLeaky", "AssociativeLeaky") if hasattr(snn, name)
)
"""snnTorch's layers that take all steps at once."""


STATES = ()
"""Attributes of modules, dictionaries, in which states are kept beside buffers."""


class _Layer(Layer):
    """A spiking layer of snnTorch."""

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, module)
        self.own = isinstance(module, Neuron)
        self.over_steps = ("multi_step",) if self.own else ()
        self.graded, self.bursts = isinstance(module, VSN), isinstance(module, LIFB)
        native = getattr(module.spike_grad, "__module__", "") == "snntorch.surrogate"  # all of them are steps
        self.binary = native and not module.surrogate_disable
        self.leading = 2 if isinstance(module, _SEQUENCES) else 1
        self._last: Any = None
        self._one: tuple[Any, int] = self, 0
        """A constant factor that was 1 in this version: a look at a value takes its time."""

    def spikes(self, y: Tensor) -> Tensor:
        factor = self.module._buffers.get("graded_spikes_factor")
        one, version = self._one
        if factor is one and factor._version == version and not factor.requires_grad:
            return y
        if factor is None:
            factor = getattr(self.module, "graded_spikes_factor", 1)
        if not isinstance(factor, Tensor):
            return y
        if _number(factor) == 1:
            if not factor.is_inference():  # that has no versions
                self._one = factor, factor._version
            return y
        factor = torch.as_tensor(factor, device=y.device)
        return torch.where(factor != 0, y / torch.where(factor != 0, factor, 1), 0)

    def fresh(self) -> bool:
        mem = self.module._buffers.get("mem")
        return mem is not None and not self.midway() and self._zeroed(mem)

    def midway(self) -> bool:
        mem = self.module._buffers.get("mem")
        return mem is not None and mem.requires_grad  # what a reset leaves has no gradient

    @torch.compiler.disable  # looks at values
    def _zeroed(self, mem: Tensor) -> bool:
        last = None if self._last is None else self._last()
        return last is not mem and not bool(mem.any())

    def ran(self) -> None:
        mem = self.module._buffers.get("mem")
        self._last = None if mem is None else weakref.ref(mem)


def describe(name: str, module: nn.Module) -> Layer | None:
    """Return `module` as a spiking layer, if it is one of snnTorch."""
    if isinstance(module, (DecoupledLIFB, SpikeCountMaxPool)):  # a pair of layers, and no neuron at all
        return None
    return _Layer(name, module) if isinstance(module, snn.SpikingNeuron) else None


def pooling(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return the pooling of the ANN behind a `SpikeCountMaxPool`, or nothing."""
    return module.pool if isinstance(module, SpikeCountMaxPool) else None


def reset_states(net: nn.Module) -> None:
    """Reset the neurons of snnTorch in `net`, and no others."""
    reset(net)


class _Regularizer(Weighted):
    """A penalty times its weight, as snnTorch's training loops take it."""

    def __init__(self, penalty: Penalty, lam: Weight | None) -> None:
        super().__init__(penalty, lam)
        # snntorch.backprop knows its regularisers by name, and has this one on its list alone: it then calls
        # them with the spikes, not the potentials.
        self.__name__ = "l1_rate_sparsity"
        self._task: Tensor | None = None

    def __call__(  # type: ignore[override]  # as snnTorch calls it
        self, spk_out: Tensor | None = None, task: Tensor | float | None = None
    ) -> Tensor:
        """Return the weighted penalty for what has run; `spk_out` is not needed, the layers are watched."""
        told, self._task = self._task, None
        return super().__call__(told if task is None else task)

    def beside(self, criterion: Any) -> Any:
        """Return `criterion` as it is, but that the regulariser is told the task's loss, too."""
        return _Told(criterion, self)


class _Told:
    """A loss function of snnTorch that tells a regulariser what it returns."""

    def __init__(self, criterion: Any, regularizer: _Regularizer) -> None:
        self._criterion, self._regularizer = criterion, regularizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        loss = self._criterion(*args, **kwargs)
        self._regularizer._task = loss.detach()
        return loss

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "__name__":
            raise AttributeError(name)
        return getattr(self._criterion, name)


def synaptic_reg(
    net: nn.Module, sample_input: Any, Lambda: Weight | None = None, p: float = 1
) -> _Regularizer:
    """Return `snn_ext.energy.SynapticPenalty` as a regulariser of snnTorch.

    Parameters
    ----------
    net, sample_input, p
        As in `SynapticPenalty`.
    Lambda : float or callable, optional
        Weight in the loss, or a schedule such as `snn_ext.energy.LinearRamp`, which then counts the calls. If
        left out, `snn_ext.energy.WhenLearning`: relative to the task's loss, once that drops.

    Returns
    -------
    callable
        Takes ``spk_out`` and returns the weighted penalty; goes as ``regularization`` into the loops of
        ``snntorch.backprop``.  What `WhenLearning` needs, the task's loss, it is told by
        ``reg.beside(criterion)`` or, in a loop of your own, by ``loss = task + reg(spk, task)``.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        Naming the argument, the value and the remedy.

    Examples
    --------
    ::

        reg = synaptic_reg(net, images[:1])
        criterion = reg.beside(ce_rate_loss())
        backprop.BPTT(net, loader, optimizer, criterion, num_steps=8, time_var=False, regularization=reg)
    """
    return _regularizer(SynapticPenalty, net, sample_input, Lambda, p)


def total_spike_reg(
    net: nn.Module, sample_input: Any = None, Lambda: Weight | None = None, p: float = 1
) -> _Regularizer:
    """Return `snn_ext.energy.TotalSpikePenalty` as a regulariser of snnTorch; see `synaptic_reg`."""
    return _regularizer(TotalSpikePenalty, net, sample_input, Lambda, p)


def balanced_spike_reg(
    net: nn.Module, sample_input: Any = None, Lambda: Weight | None = None, p: float = 1
) -> _Regularizer:
    """Return `snn_ext.energy.BalancedSpikePenalty` as a regulariser of snnTorch; see `synaptic_reg`."""
    return _regularizer(BalancedSpikePenalty, net, sample_input, Lambda, p)


def _regularizer(kind: Any, net: nn.Module, sample_input: Any, lam: Weight | None, p: float) -> _Regularizer:
    if lam is not None and not callable(lam):
        check_lambda(lam, "Lambda")
    return _Regularizer(kind(net, sample_input, p=p), lam)
