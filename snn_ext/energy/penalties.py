r"""Penalties on spikes that are added to a training loss: ``loss = task + lam * penalty()``.

`snn_ext.energy.Weighted` chooses ``lam``, and waits until a network that is trained from scratch has begun to
learn: see there for why.

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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from . import layers
from .layers import Layer
from .synapses import fan_out

__all__ = ["BalancedSpikePenalty", "SpikingActivityLoss", "SynapticPenalty", "TotalSpikePenalty"]


# asked at each step of a loop, when little of Python is in the cache
_with_gradients = torch.is_grad_enabled
_compiling = torch.compiler.is_dynamo_compiling
_functorch = torch._C._are_functorch_transforms_active

_EXACT = (torch.float32, torch.float64)

_LOOK = 10
"""Losses from one look at which layers fire to the next: a look waits for what the device computes."""
_LARGE = 1 << 17
"""Spikes from this number on are counted at once, while they are at hand; fewer, as in a loop, wait."""


class _Kind(NamedTuple):
    """Spikes of a layer that have one size, how they are counted, and what they cost."""

    name: str
    weight: Tensor
    leading: int
    shape: torch.Size
    dtype: torch.dtype
    power: float
    binary: bool
    order: list[int]
    """The dimensions of neurons as they lie in memory (channels last), if that is another order."""

    @property
    def flat(self) -> bool:
        """Whether they are 0 and 1 in a matrix."""
        return self.binary and len(self.shape) == 2 and self.leading == 1 and self.dtype in _EXACT


class _Part:
    """What a layer has sent since the last loss, in tensors of one kind."""

    def __init__(self, kind: _Kind) -> None:
        self.kind, self.leading, self.shape, self.dtype = kind, kind.leading, kind.shape, kind.dtype
        self.large = self.shape.numel() >= _LARGE
        self.counts: Tensor | None = None
        self.waiting: list[tuple[Tensor, int]] = []
        """Spikes that are still to be counted, or `_Counted`, and the versions that their memory had."""

    def taken(self) -> list[Tensor]:
        """Return what waits, and keep it no longer."""
        found = []
        for tensor, version in self.waiting:
            if version != tensor._version:
                raise RuntimeError(
                    f"layer {self.kind.name!r}: its spikes were written to before the penalty was taken; use "
                    "an operation that returns a new tensor (inplace=False)"
                )
            found.append(tensor)
        self.waiting = []
        return found

    def add(self, counts: Tensor) -> None:
        self.counts = counts if self.counts is None else self.counts + counts


class _Record:
    """What a layer has been seen to send since the last loss."""

    def __init__(self) -> None:
        self.parts: dict[tuple[int, torch.Size, torch.dtype], _Part] = {}
        self.part: _Part | None = None
        """That of the last run."""
        self.steps: Tensor | int = 0


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
        self._last: list[tuple[str, Tensor]] = []
        """What each layer cost at the last call, by part."""
        self._calls, self._fired, self._quiet, self._said = 0, set[str](), set[str](), False
        """Of training: losses taken, layers that have fired, and did not at the last look; a warning."""
        self._layers = [layer for layer in layers.spiking(net) if self._matters(layer)]
        self._ends = [layers.watch(layer, self, p) for layer in self._layers]

    def _matters(self, layer: Layer) -> bool:
        return True

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> Tensor:
        """Return what a spike of each neuron costs, or of any."""
        raise NotImplementedError

    def _per(self, record: _Record) -> Tensor | int:
        """Return by what the cost of a layer is divided, beside the batch."""
        return 1

    def __call__(self) -> Tensor:
        """Return the penalty for all that has run since the last call, and forget it.

        Where gradients are enabled, it is that of what ran with gradients, if anything did; under
        ``torch.no_grad`` that of what ran without.  So validation leaves no trace in training.

        Raises
        ------
        RuntimeError
            Nothing has run since the last call, or since the network was reset; what a layer emitted has been
            written to before it was counted; or `remove` was called.

        Warns
        -----
        UserWarning
            Gradients are enabled and the network is in training mode, but it ran without.  Once, if a layer
            that has fired falls silent in training.
        """
        if not self._ends:
            raise RuntimeError(
                f"this {type(self).__name__} was removed, and watches the network no longer; build another"
            )
        for records in self._records.values():
            # within a transform a neuron keeps no state, by which a reset could be told
            for layer in self._layers if records and not _functorch() else ():
                if layer.name in records and layer.fresh():
                    self._drop(records, layer)
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
        total, self._last = _total(
            [
                (part, self.p * max(1, part.shape[part.kind.leading - 1]) * self._per(record))
                for record in found.values()
                for part in record.parts.values()
            ]
        )
        if grad and ran:
            self._calls += 1
            if self._calls % _LOOK == 1:
                self._look()
        return total

    def last(self) -> dict[str, float]:
        """Return what each layer added to the penalty when it was called last, by name."""
        found: dict[str, float] = {}
        for name, cost in self._last:
            found[name] = found.get(name, 0.0) + float(cost)
        return found

    def _look(self) -> None:
        """Warn if layers that have fired are silent at two looks in succession."""
        last = self.last()
        quiet = {name for name, value in last.items() if value == 0}
        fell = [name for name in last if name in quiet & self._quiet & self._fired]
        self._quiet = quiet
        self._fired = (self._fired | (set(last) - quiet)) - set(fell)
        if fell and not self._said:
            self._said = True
            warnings.warn(
                f"layer {', '.join(map(repr, fell))} has fallen silent in training; a penalty does that to a "
                "network that has hardly learned yet, or where it weighs too much: use "
                "snn_ext.energy.Weighted(penalty), or a smaller weight",
                stacklevel=3,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(layer.name for layer in self._layers)}; p={self.p})"

    def __str__(self) -> str:
        last = self.last()
        lines = [f"{type(self).__name__}, p={self.p}, {'watches:' if self._ends else 'removed; it watched:'}"]
        for layer in self._layers:
            value = f"{last[layer.name]:,.6g}" if layer.name in last else "not yet taken"
            name, kind = layer.name or "(itself)", type(layer.module).__name__
            lines.append(f"  {name}: {kind}{self._about(layer)}; last value {value}")
        return "\n".join([*lines, f"last value {sum(last.values()):,.6g}"] if last else lines)

    def _about(self, layer: Layer) -> str:
        """Return what is to be said about a layer when the penalty is printed."""
        return ""

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
        records = self._records[_with_gradients()]
        if layer.name in records and layer.fresh():
            self._drop(records, layer)

    def _drop(self, records: dict[str, _Record], layer: Layer) -> None:
        del records[layer.name]
        self._taken = False

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> Tensor | None:
        """Add the spikes of `layer` to its record; return what is to be handed on for them, if new."""
        grad = _with_gradients()
        records = self._records[grad]
        record = records.get(layer.name)
        if record is None:
            record = records[layer.name] = _Record()
        part = record.part
        if (
            part is None
            or spikes.shape != part.shape
            or spikes.dtype != part.dtype
            or leading != part.leading
        ):
            part = self._part(record, layer, spikes, leading, power)
        own = type(spikes) is Tensor  # none that stands for another while a graph is made
        if not grad or _compiling() or not own or _functorch() or forward_ad._current_level >= 0:
            exact = _accurate(spikes.dtype)
            powers = spikes.to(exact) ** power if power != 1 else spikes
            part.add(powers.sum(dim=tuple(range(leading)), dtype=exact))
        elif part.large:
            passed, counts = _Counted.apply(part.kind, spikes)
            part.waiting.append((counts, counts._version))
            return passed
        else:
            part.waiting.append((spikes, spikes._version))
        return None

    def _part(self, record: _Record, layer: Layer, spikes: Tensor, leading: int, power: float) -> _Part:
        """Return the part of a record for spikes of the size of these."""
        if spikes.dim() < leading:
            raise ValueError(
                f"layer {layer.name!r} ran on input without a batch, of which the penalty takes the mean; "
                "give it a dimension for that, x.unsqueeze(0)"
            )
        key = leading, spikes.shape, spikes.dtype
        if key not in record.parts:
            weight = self._weight(layer, spikes, leading).to(_accurate(spikes.dtype))
            order = _order(spikes, leading)
            record.parts[key] = _Part(_Kind(layer.name, weight, *key, power, layer.binary, order))
        record.part = record.parts[key]
        return record.part

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
    zero_weights : {"count", "skip"}, default "count"
        Whether weights that are zero, as after pruning, are synapses.

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

        saving = Weighted(SynapticPenalty(net, images[:1]))
        for images, labels in loader:
            task = cross_entropy(net(images), labels)
            loss = task + saving(task)
    """

    def __init__(
        self, net: nn.Module, sample_input: Any, *, p: float = 1, zero_weights: str = "count"
    ) -> None:
        self.fan_out = fan_out(net, sample_input, zero_weights=zero_weights)
        super().__init__(net, sample_input, p=p)
        if not self._layers:
            raise ValueError(
                f"no spiking layer of {type(net).__name__} drives a synapse, so there is nothing to save; "
                "put weights behind one, or use TotalSpikePenalty"
            )

    def _matters(self, layer: Layer) -> bool:
        psi = self.fan_out.get(layer.name)
        return psi is not None and bool(psi.any())

    def _about(self, layer: Layer) -> str:
        psi = self.fan_out[layer.name]
        return f", {psi.numel():,} neurons that drive {psi.sum():,.0f} synapses"

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

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> Tensor:
        return torch.ones((), device=spikes.device)


class BalancedSpikePenalty(Penalty):
    """The mean number of spikes of a neuron, summed over layers: a rival in arXiv:2302.01500.

    Parameters
    ----------
    net, sample_input, p
        As in `SynapticPenalty`; `sample_input` is not needed.
    """

    def _weight(self, layer: Layer, spikes: Tensor, leading: int) -> Tensor:
        share = 1 / max(1, spikes.shape[leading:].numel())
        return torch.tensor(share, dtype=_accurate(spikes.dtype), device=spikes.device)


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

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> Tensor | None:
        """Add the spikes of `layer` to its record, and its steps."""
        passed = super().see(layer, spikes, leading, steps, power)
        record = self._records[torch.is_grad_enabled()][layer.name]
        record.steps = record.steps + torch.tensor(steps)  # no number, which would be one in compiled graphs
        return passed

    def _per(self, record: _Record) -> Tensor | int:
        return record.steps


def _accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _in_full(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of an autograd function compute as written, where autocast would round what it sums."""

    @functools.wraps(function)
    def run(ctx: Any, *args: Any) -> Any:
        device = next(x.device.type for x in args if isinstance(x, Tensor))
        if not torch.is_autocast_enabled(device):
            return function(ctx, *args)
        with torch.autocast(device, enabled=False):
            return function(ctx, *args)

    return run


def _order(spikes: Tensor, leading: int) -> list[int]:
    if spikes.dim() < leading + 2:
        return []
    neurons = [*range(leading, spikes.dim())]
    order = sorted(neurons, key=spikes.stride, reverse=True)
    return [] if order == neurons else order


def _total(parts: list[tuple[_Part, Any]]) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """Return what all spikes cost, those of each part divided by the number beside it; and what each did."""
    costs: list[Tensor] = []
    named: list[tuple[str, Tensor]] = []
    groups: list[_Group] = []
    waiting: list[Tensor] = []
    dtype = torch.float32
    for part, number in parts:
        if part.dtype == torch.float64:
            dtype = torch.float64
        if part.counts is not None:
            costs.append((part.counts * part.kind.weight).sum(dtype=torch.float64) / number)
            named.append((part.kind.name, costs[-1].detach()))
        if found := part.taken():
            groups.append(_Group(part.kind, number, len(found), part.large))
            waiting += found
    costs = [cost.to(dtype) for cost in costs]
    if waiting:
        costs.append(_Cost.apply(groups, dtype, named, *waiting))
    return functools.reduce(torch.add, costs), named


class _Group(NamedTuple):
    """Tensors of one kind, so many: spikes, or what `_Counted` returns for them; their cost is divided."""

    kind: _Kind
    number: Any
    length: int
    counted: bool


class _Counted(torch.autograd.Function):
    """The spikes, to be handed on, and how often each neuron has spiked: the sum of ``s ** p``.

    What both add to the gradient is added at once.  In it, the factor `p` is left to `_Cost`.
    """

    @staticmethod
    @_in_full
    def forward(ctx: Any, kind: _Kind, s: Tensor) -> tuple[Tensor, Tensor]:
        ctx.kind = kind
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*([s] if kind.power != 1 else []))
        return s.detach(), _count(kind, [s]).view(kind.shape[kind.leading :])

    @staticmethod
    @_in_full
    def backward(ctx: Any, grad: Tensor | None, slope: Tensor | None) -> tuple[Tensor | None, ...]:
        kind: _Kind = ctx.kind
        if slope is None:
            return None, grad
        found = ctx.saved_tensors or [None]
        if grad is None:
            return None, *_pushed(kind, slope, found)
        slope = _laid(kind, slope)
        if kind.power == 1:
            return None, grad + slope
        s = found[0]
        return None, torch.addcmul(grad, s if kind.binary else s ** (kind.power - 1), slope)


class _Cost(torch.autograd.Function):
    """What groups of spikes cost together.

    One function for all, and not one for each step of a loop, which would take longer than the arithmetic.
    """

    @staticmethod
    @_in_full
    def forward(
        ctx: Any, groups: list[_Group], dtype: torch.dtype, named: list[tuple[str, Tensor]], *waiting: Tensor
    ) -> Tensor:
        costs: list[Tensor] = []
        saved: list[Tensor] = []
        ctx.groups, start = groups, 0
        for kind, number, length, counted in groups:
            found, start = waiting[start : start + length], start + length
            counts = functools.reduce(torch.add, found) if counted else _count(kind, found)
            costs.append((counts * kind.weight).sum(dtype=torch.float64) / number)
            named.append((kind.name, costs[-1]))
            if kind.power != 1 and not counted:
                saved += found
        ctx.save_for_backward(*saved)
        return functools.reduce(torch.add, costs).to(dtype)

    @staticmethod
    @_in_full
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor] = []
        saved, start = ctx.saved_tensors, 0
        for kind, number, length, counted in ctx.groups:
            slope = kind.weight * (grad * (kind.power / number))
            if counted:
                grads += [slope.expand(kind.shape[kind.leading :])] * length
                continue
            found: Sequence[Any] = [None] * length
            if kind.power != 1:
                found, start = saved[start : start + length], start + length
            grads += _pushed(kind, slope, found)
        return None, None, None, *grads


def _count(kind: _Kind, found: Sequence[Tensor]) -> Tensor:
    """Return the sum of ``s ** p`` over tensors of a kind, for each neuron."""
    if kind.flat:  # a product with ones is quicker than a sum, and as exact where spikes are 0 and 1
        ones = found[0].new_ones(1, len(found[0]))
        product = torch.mm(ones, found[0])
        for s in found[1:]:
            product.addmm_(ones, s)
        return product
    before, order = tuple(range(kind.leading)), kind.order
    counts: Any = None
    for s in found:
        powers = s if kind.power == 1 or kind.binary else s.to(_accurate(kind.dtype)) ** kind.power
        powers = powers.permute(*before, *order) if order else powers  # so that memory is read in one sweep
        count = powers.sum(dim=before, dtype=_accurate(kind.dtype))
        counts = count if counts is None else counts.add_(count)
    return counts.permute([order.index(d) for d in sorted(order)]) if order else counts


def _laid(kind: _Kind, slope: Tensor) -> Tensor:
    """Return what a spike of each neuron adds as spikes are: in dtype, and in the order of memory."""
    slope = slope.to(kind.dtype)
    if not kind.order or not slope.dim():
        return slope
    order = [d - kind.leading for d in kind.order]
    return slope.permute(order).contiguous().permute([order.index(d) for d in range(len(order))])


def _pushed(kind: _Kind, slope: Tensor, found: Sequence[Any]) -> list[Tensor]:
    """Return the gradients of spikes of a kind; they take no memory where `p` is 1."""
    slope = _laid(kind, slope)
    if kind.power == 1:
        return [slope.expand(kind.shape)] * len(found)
    if kind.binary or kind.power == 2:
        return [s * slope for s in found]
    return [s ** (kind.power - 1) * slope for s in found]
