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

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..functional import _transformed
from . import layers
from .layers import Layer
from .synapses import fan_out

__all__ = ["BalancedSpikePenalty", "SpikingActivityLoss", "SynapticPenalty", "TotalSpikePenalty"]


class _Record:
    """What a layer has been seen to spend since the last loss."""

    def __init__(self, with_gradients: bool) -> None:
        self.with_gradients = with_gradients
        self.total: Tensor | float = 0.0
        self.steps: Tensor | int = 0


class Penalty:
    """Base of the penalties: watches the spiking layers of a network, and sums up."""

    def __init__(self, net: nn.Module, sample_input: Any = None, *, p: float = 1) -> None:
        if isinstance(p, bool) or not isinstance(p, (int, float)):
            raise TypeError(f"p must be a number, got {type(p).__name__}; use 1 or 2")
        if not 1 <= p < math.inf:
            raise ValueError(f"p={p} must be at least 1 and finite; 1 works best in the paper")
        self.p = p
        self._records: dict[str, _Record] = {}
        self._taken = False
        self._layers = [layer for layer in layers.spiking(net) if self._matters(layer)]
        self._ends = [layers.watch(layer, self, p) for layer in self._layers]

    def _matters(self, layer: Layer) -> bool:
        return True

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> float | Tensor:
        """Return what a spike of each neuron costs."""
        raise NotImplementedError

    def _layer_total(self, record: _Record) -> Tensor | float:
        return record.total

    def __call__(self) -> Tensor:
        """Return the penalty for all that has run since the last call, and forget it.

        Raises
        ------
        RuntimeError
            Nothing has run since the last call, or since the network was reset.
        """
        for layer in self._layers:
            if layer.name in self._records and layer.fresh():
                self._drop(layer)
        if not self._records:
            raise RuntimeError(
                "the penalty was already taken for this forward pass; call it once, after each forward"
                if self._taken
                else "the penalty was called before any forward pass, or after a reset; run the network first"
            )
        self._taken = True
        records = list(self._records.values())
        self._records.clear()
        trained = [record for record in records if record.with_gradients]
        if not trained and torch.is_grad_enabled() and any(layer.module.training for layer in self._layers):
            warnings.warn(
                "the penalty has no gradient, since the network ran without (under torch.no_grad, or within "
                "a checkpoint with use_reentrant=True); to measure only, call it under torch.no_grad, too",
                stacklevel=2,
            )
        total: Any = sum(self._layer_total(record) for record in trained or records)
        return total

    def clear(self) -> None:
        """Forget what has run since the last call."""
        self._records.clear()

    def remove(self) -> None:
        """Watch the network no longer; the penalty cannot be called again."""
        for end in self._ends:
            end()
        self._ends = []
        self._records.clear()

    def forget(self, layer: Layer) -> None:
        """Forget what `layer` did before it was reset, as it runs again.

        What ran with gradients is kept if now it runs without, in a validation before the loss.
        """
        record = self._records.get(layer.name)
        if record is not None and (torch.is_grad_enabled() or not record.with_gradients):
            self._drop(layer)

    def _drop(self, layer: Layer) -> None:
        del self._records[layer.name]
        self._taken = False

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        """Add the spikes of `layer` to its record.

        What ran without gradients is not added to what ran with them: validation leaves no trace in training.
        """
        if spikes.dim() < leading:
            raise ValueError(
                f"layer {layer.name!r} ran on input without a batch, of which the penalty takes the mean; "
                "give it a dimension for that, x.unsqueeze(0)"
            )
        grad = torch.is_grad_enabled()
        record = self._records.get(layer.name)
        if record is None or (grad and not record.with_gradients):
            record = self._records[layer.name] = _Record(grad)
        elif record.with_gradients and not grad:
            return
        self._add(record, layer, spikes, leading, steps, power)

    def _add(
        self, record: _Record, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float
    ) -> None:
        weight = torch.as_tensor(self._weight(layer, spikes, leading), device=spikes.device)
        if _transformed(spikes):
            weighted = (weight * spikes**power).sum()
        else:
            weighted = _Weighted.apply(spikes, weight, power, leading)
        record.total = record.total + weighted / (self.p * max(1, spikes.shape[leading - 1]))

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

    def _add(
        self, record: _Record, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float
    ) -> None:
        super()._add(record, layer, spikes, leading, steps, power)
        record.steps = record.steps + torch.tensor(steps)  # no number, which would be one in compiled graphs

    def _layer_total(self, record: _Record) -> Tensor | float:
        return record.total / record.steps


class _Weighted(torch.autograd.Function):
    """The sum of ``weight * s ** p``: reads `s` once, and its gradient takes no memory where p is 1."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, weight: Tensor, p: float, leading: int) -> Tensor:
        dtype = torch.float64 if s.dtype == torch.float64 else torch.float32
        # neurons in the order that they have in memory (channels last), so that all is read in one sweep
        order = sorted(range(leading, s.dim()), key=s.stride, reverse=True)
        back = [order.index(d) for d in range(leading, s.dim())]
        powers = (s if p == 1 else s**p).permute(*range(leading), *order)
        counts = powers.sum(dim=tuple(range(leading)), dtype=dtype).permute(back)
        slope = torch.empty_like(counts).copy_(weight)
        ctx.p = p
        ctx.like = s.shape, s.dtype
        ctx.save_for_backward(s if p != 1 else None, slope)
        return (counts.double() * slope).sum().to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        s, slope = ctx.saved_tensors
        shape, dtype = ctx.like
        slope = (ctx.p * slope * grad).to(dtype)
        if s is None:
            return slope.expand(shape), None, None, None
        return (s if ctx.p == 2 else s ** (ctx.p - 1)) * slope, None, None, None
