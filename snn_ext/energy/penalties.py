r"""Penalties on spikes that are added to a training loss: ``loss = task + lam * penalty()``.

.. math::

    \Omega = \frac{1}{p\,N} \sum_{t, n, i} \psi_i\, s_{i,n,t}^{\,p}

with :math:`s` the spikes, summed over steps, layers and neurons, and the mean over the :math:`N` samples of
the batch.  With :math:`\psi_i` the number of synapses that neuron :math:`i` drives, and spikes of 0 and 1,
this is the number of synaptic operations divided by :math:`p`: the energy itself, :math:`E =
p\,E_{AC}\,\Omega`.

The exponent changes the gradient alone.  :math:`p = 1` also pushes neurons that are silent, as far as the
surrogate reaches; :math:`p > 1` only those that fired.

What counts as a spike: for a VSN its gate; for a LIFB every spike of a burst, so that a burst counts
:math:`\kappa` times and a learned :math:`\kappa` is pushed as well, with the exponent on the events (spike
and burst) and not on :math:`\kappa`; elsewhere what is emitted, without its amplitude or snnTorch's
``graded_spikes_factor``.

Spiking layers are those of snnTorch, SpikingJelly and this package; a step function of your own is no layer
that could be watched.  Layers without a state (SpikingJelly's ``PSN``, snnTorch's ``StateLeaky``) know of no
reset: call `clear` after a forward that no loss follows.

Source: Suetake et al., arXiv:2302.01500; counting graded spikes and bursts is inferred.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..functional import _transformed
from . import layers
from .layers import Layer
from .synapses import fan_out

__all__ = ["BalancedSpikePenalty", "SpikingActivityLoss", "SynapticPenalty", "TotalSpikePenalty"]


_LARGE = 1 << 17
"""Elements from which spikes are counted at once, while they are at hand; a loop's fewer wait for the loss."""


class _Record:
    """What a layer has been seen to spend since the last loss."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.steps: Tensor | int = 0
        self.shape: torch.Size | None = None
        """That of the spikes which are counted now; others have gone into the total."""
        self.counts: Tensor | None = None
        self.waiting: list[tuple[Tensor, int]] = []
        """Spikes that are still to be counted, and the versions that their memory had."""
        self.count: Any = None
        self.weigh: Any = None


class Penalty:
    """Base of the penalties: watches the spiking layers of a network, and sums up."""

    def __init__(self, net: nn.Module, sample_input: Any = None, *, p: float = 1) -> None:
        if isinstance(p, bool) or not isinstance(p, (int, float)):
            raise TypeError(f"p must be a number, got {type(p).__name__}; use 1 or 2")
        if not 1 <= p < math.inf:
            raise ValueError(f"p={p} must be at least 1 and finite; 1 works best in the paper")
        self.p = p
        self._records: dict[bool, dict[str, _Record]] = {True: {}, False: {}}
        """What ran with gradients, and what ran without, by layer."""
        self._taken = False
        self._layers = [layer for layer in layers.spiking(net) if self._matters(layer)]
        self._ends = [layers.watch(layer, self, p) for layer in self._layers]

    def _matters(self, layer: Layer) -> bool:
        return True

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> float | Tensor:
        """Return what a spike of each neuron costs."""
        raise NotImplementedError

    def _layer_total(self, record: _Record) -> Tensor:
        assert record.total is not None
        return record.total

    def __call__(self) -> Tensor:
        """Return the penalty for all that has run since the last call, and forget it.

        Where gradients are enabled, it is that of what ran with gradients, if anything did; under
        ``torch.no_grad`` that of what ran without.  So validation leaves no trace in training.

        Raises
        ------
        RuntimeError
            Nothing has run since the last call, or since the network was reset; or what a layer emitted has
            been written to meanwhile.

        Warns
        -----
        UserWarning
            Gradients are enabled and the network is in training mode, but it ran without.
        """
        for layer in self._layers:
            for with_gradients in self._records:
                self._drop_old(layer, with_gradients)
        grad = torch.is_grad_enabled()
        ran = grad if self._records[grad] else not grad
        found = self._records[ran]
        if not found:
            raise RuntimeError(
                "the penalty was already taken for this forward pass; call it once, after each forward"
                if self._taken
                else "the penalty was called before any forward pass, or after a reset; run the network first"
            )
        self._taken = True
        self._records[ran] = {}
        if grad:
            self._records[False] = {}
        if grad and not ran and any(layer.module.training for layer in self._layers):
            warnings.warn(
                "the penalty has no gradient, since the network ran without (under torch.no_grad, or within "
                "a checkpoint with use_reentrant=True); to measure only, call it under torch.no_grad, too",
                stacklevel=2,
            )
        for name, record in found.items():
            _weigh(name, record)
        return functools.reduce(torch.add, map(self._layer_total, found.values()))

    def clear(self) -> None:
        """Forget what has run since the last call."""
        self._records = {True: {}, False: {}}

    def remove(self) -> None:
        """Watch the network no longer; the penalty cannot be called again."""
        for end in self._ends:
            end()
        self._ends = []
        self._records = {True: {}, False: {}}

    def begin(self, layer: Layer) -> None:
        """Forget what `layer` did before it was reset, as it runs again, with gradients or without."""
        self._drop_old(layer, torch.is_grad_enabled())

    def _drop_old(self, layer: Layer, with_gradients: bool) -> None:
        records = self._records[with_gradients]
        if layer.name in records and layer.fresh():
            del records[layer.name]
            self._taken = False

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        """Add the spikes of `layer` to its record."""
        if spikes.dim() < leading:
            raise ValueError(
                f"layer {layer.name!r} ran on input without a batch, of which the penalty takes the mean; "
                "give it a dimension for that, x.unsqueeze(0)"
            )
        grad = torch.is_grad_enabled()
        record = self._records[grad].get(layer.name)
        if record is None:
            record = self._records[grad][layer.name] = _Record()
        if record.shape != spikes.shape:
            _weigh(layer.name, record)
            self._prepare(record, layer, spikes, leading, power)
        # without gradients nobody else holds them
        waits = grad and not (torch.compiler.is_compiling() or _transformed(spikes))
        record.waiting.append((spikes, spikes._version if waits else -1))
        if not waits or spikes.numel() > _LARGE:
            _count(layer.name, record)
        self._ran(record, steps)

    def _prepare(self, record: _Record, layer: Layer, spikes: Tensor, leading: int, power: float) -> None:
        """Say how spikes of the size of these are counted, and what they cost as the mean over the batch."""
        weight = torch.as_tensor(self._weight(layer, spikes, leading), device=spikes.device)
        mean = self.p * max(1, spikes.shape[leading - 1])
        before = tuple(range(leading))
        dtype = torch.float64 if spikes.dtype == torch.float64 else torch.float32

        def count(found: list[Tensor]) -> Tensor:
            if torch.compiler.is_compiling() or _transformed(*found):
                return functools.reduce(torch.add, ((s**power).sum(dim=before, dtype=dtype) for s in found))
            return _Counted.apply(power, leading, layer.binary, *found)

        def weigh(counts: Tensor) -> Tensor:
            return ((counts * weight).sum(dtype=torch.float64) / mean).to(dtype)

        record.shape, record.count, record.weigh = spikes.shape, count, weigh

    def _ran(self, record: _Record, steps: int) -> None:
        """Note that a layer has run."""

    def __getstate__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: it watches one network; build another for "
            "the copy"
        )


class SynapticPenalty(Penalty):
    """Synaptic operations of a forward pass: each spike costs the synapses that it drives.

    Parameters
    ----------
    net : nn.Module
        A network with spiking layers of snnTorch, SpikingJelly or this package.
    sample_input : Tensor, or tuple of arguments
        What `net` is called with, of the size that it is trained on: synapses are counted on it (`fan_out`).
    p : float, default 1
        Exponent of the spikes, at least 1; see `snn_ext.energy.penalties`.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        Naming the argument, the value and the remedy; see `fan_out` for what can be counted.

    Notes
    -----
    Called after the forward, it returns a number with a gradient, synaptic operations per sample divided by
    `p`, and starts anew.  Copies of the network are not watched.  Source: arXiv:2302.01500.

    Examples
    --------
    ::

        penalty = SynapticPenalty(net, images[:1])
        for images, labels in loader:
            loss = cross_entropy(net(images), labels) + 1e-6 * penalty()
    """

    def __init__(self, net: nn.Module, sample_input: Any, *, p: float = 1) -> None:
        self.fan_out = fan_out(net, sample_input)
        super().__init__(net, sample_input, p=p)
        if not self._layers:
            raise ValueError(
                f"no spiking layer of {type(net).__name__} drives a synapse, so there is nothing to save; "
                "put weights behind one, or use TotalSpikePenalty"
            )

    def _matters(self, layer: Layer) -> bool:
        psi = self.fan_out.get(layer.name)
        return psi is not None and bool(psi.any())

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> Tensor:
        psi, neurons = self.fan_out[layer.name], spikes.shape[leading:]
        if psi.shape != neurons:
            raise ValueError(
                f"layer {layer.name!r} has neurons of shape {tuple(neurons)}, but its synapses were counted "
                f"for {tuple(psi.shape)}; build the penalty with a sample_input of the size that the network "
                "is trained on"
            )
        if psi.device != spikes.device:
            psi = self.fan_out[layer.name] = psi.to(spikes.device)
        return psi


class TotalSpikePenalty(Penalty):
    """All spikes of a forward pass, whatever they drive: a rival in arXiv:2302.01500.

    Parameters
    ----------
    net, sample_input, p
        As in `SynapticPenalty`; `sample_input` is not needed.
    """

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> float:
        return 1.0


class BalancedSpikePenalty(Penalty):
    """The mean number of spikes of a neuron, summed over layers: a rival in arXiv:2302.01500.

    Parameters
    ----------
    net, sample_input, p
        As in `SynapticPenalty`; `sample_input` is not needed.
    """

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> float:
        return 1.0 / max(1, spikes.shape[leading:].numel())


class SpikingActivityLoss(BalancedSpikePenalty):
    """Spiking activity, the spikes that a neuron sends in a step on average, summed over layers.

    Parameters
    ----------
    net : nn.Module
        A network with spiking layers of snnTorch, SpikingJelly or this package.

    Notes
    -----
    Spikes / (batch * neurons * steps), a burst counting as its spikes, after the authors of the VSN (their
    code to arXiv:2311.09267, with weights from 0.01 to 1).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)

    def _ran(self, record: _Record, steps: int) -> None:
        record.steps = record.steps + torch.tensor(steps)  # no number, which would be one in compiled graphs

    def _layer_total(self, record: _Record) -> Tensor:
        return super()._layer_total(record) / record.steps


def _count(name: str, record: _Record) -> None:
    """Count what waits: all steps of a loop together, for each would take its time."""
    if not record.waiting:
        return
    for spikes, version in record.waiting:
        if version >= 0 and spikes._version != version:
            raise RuntimeError(
                f"layer {name!r}: its spikes were written to before the penalty was taken; use an operation "
                "that returns a new tensor (inplace=False)"
            )
    found = record.count([spikes for spikes, _ in record.waiting])
    record.counts = found if record.counts is None else record.counts + found
    record.waiting = []


def _weigh(name: str, record: _Record) -> None:
    """Add what has been counted, or waits, to the total."""
    _count(name, record)
    if record.counts is None:
        return
    found = record.weigh(record.counts)
    record.total = found if record.total is None else record.total + found
    record.counts = None


class _Counted(torch.autograd.Function):
    """How often each neuron has spiked in tensors of one size: the sum of ``s ** p`` over steps and batch.

    Reads them once where `p` is 1 or they are `binary`; the gradient takes no memory where `p` is 1.
    """

    @staticmethod
    def forward(ctx: Any, p: float, leading: int, binary: bool, *found: Tensor) -> Tensor:
        first = found[0]
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        before, neurons = tuple(range(leading)), range(leading, first.dim())
        # neurons in the order that they have in memory (channels last), so that all is read in one sweep
        order = sorted(neurons, key=first.stride, reverse=True)
        in_order = order == [*neurons]
        counts: Any = None
        for s in found:
            powers = s if p == 1 or binary else s**p
            count = (powers if in_order else powers.permute(*before, *order)).sum(dim=before, dtype=dtype)
            counts = count if counts is None else counts.add_(count)
        ctx.p, ctx.linear = p, binary or p == 2
        ctx.like = first.shape, first.dtype, len(found)
        ctx.save_for_backward(*(found if p != 1 else ()))
        return counts if in_order else counts.permute([order.index(d) for d in neurons])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shape, dtype, number = ctx.like
        slope = (grad if ctx.p == 1 else ctx.p * grad).to(dtype)
        if ctx.p == 1:
            return None, None, None, *([slope.expand(shape)] * number)
        found = ctx.saved_tensors
        return None, None, None, *((s if ctx.linear else s ** (ctx.p - 1)) * slope for s in found)
