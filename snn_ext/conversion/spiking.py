r"""From a ReLU network to a spiking one: units, folding, and the layers that stand for ReLU and max pooling.

Every neuron fires at 1 and emits 1.  What a spike is *worth* is folded into the weights that take it: a
neuron layer whose spikes are worth :math:`a` (in the ANN's units, a number or one a channel) and whose input
is divided by :math:`u` approximates a ReLU with

.. math::

    a \cdot \text{rate} \approx \mathrm{ReLU}(\text{current}), \qquad \text{if } a = u.

So :math:`W` between two layers becomes :math:`W_{ji}\,a_i / u_j` and its bias :math:`b_j / u_j`.  Where a
residual branch brings values in other units, an `Affine` converts them.

Max pooling.  Let :math:`S_t` be the number of spikes so far.  Pooling emits
:math:`\max S_t - \max S_{t-1}`: after every step it has emitted as many spikes as the busiest neuron of the
window, so the rate of the pooled train is the maximum of the rates, exactly (`MaxPool`; ours).

Source: threshold balancing by a robust percentile is that of Diehl et al. 2015 and Rueckauer et al. 2017;
half the threshold as initial potential that of Deng & Gu 2021 and Bu et al. 2022.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from .graph import AVERAGES, MAXIMA, SYNAPSES, Affine, Rectifier
from .weights import l4_norm


@dataclasses.dataclass
class Neurons:
    """What becomes of one `Rectifier`: numbers or vectors over channels, in the ANN's units."""

    worth: Tensor
    """What one spike is worth downstream."""
    unit: Tensor
    """What the input current is divided by: the firing threshold."""
    offset: Tensor
    """What is added to the divided input at each step."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """A layer of neurons as the conversion made it; what `report` prints beside firing rates."""

    path: str
    """Where the ReLU stood."""
    shape: tuple[int, ...]
    """Shape of the layer, without the batch."""
    worth: float
    """What a spike is worth, in units of the ANN's activations (mean over channels)."""
    l4_mean: float
    """Mean L4 norm of the incoming weights, in thresholds."""
    l4_spread: float
    """Its standard deviation over channels, divided by its mean."""
    offset: float
    """Mean of what is added to the input per step, in thresholds."""
    steps: int
    """For how many steps the network was fitted."""
    coding: str
    """How the images were shown to it then, ``"poisson"`` or ``"direct"``."""
    image: tuple[int, ...]
    """Shape of an image of the calibration data."""


class Spiking(nn.Module):
    """The place of a layer of integrate-and-fire neurons with threshold 1; a face puts its own neuron here.

    Parameters
    ----------
    path : str
        Where the ReLU stood.
    initial : float
        Initial potential.
    decay : float
        What is kept of the potential per step.
    reset : {"subtract", "zero"}
        What a spike does to it.
    late : bool
        As in snnTorch: subtract at the next step, after the decay, and fire above the threshold only.
    """

    converted: Converted

    def __init__(self, path: str, initial: float, decay: float, reset: str, late: bool = False) -> None:
        super().__init__()
        self.path, self.initial, self.decay, self.reset, self.late = path, initial, decay, reset, late

    def extra_repr(self) -> str:
        return f"{self.path}, initial={self.initial:g}, decay={self.decay:g}, reset={self.reset!r}"


def converted(net: nn.Module) -> dict[str, Converted]:
    """Return what is known of the neuron layers of a converted network, by the name of the layer."""
    return {name: layer.converted for name, layer in net.named_children() if hasattr(layer, "converted")}  # type: ignore[misc]


def fitted(net: nn.Module) -> Converted:
    """Return a layer of a converted network, which says for how many steps and what input it was fitted."""
    return next(iter(converted(net).values()))


class MaxPool(nn.Module):
    """The place of a max pooling of spike counts; `pool` is the pooling of the ANN."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool


def assemble(
    reading: fx.GraphModule,
    layers: dict[str, Neurons],
    *,
    initial: float,
    decay: float,
    reset: str,
    late: bool = False,
) -> fx.GraphModule:
    """Return the spiking network of `reading`, with `layers` by the name of their `Rectifier`."""
    net = _Assembly(reading, layers).graph_module()
    for name, layer in list(net.named_children()):
        if isinstance(layer, Rectifier):
            setattr(net, name, Spiking(layer.path, initial, decay, reset, late))
        elif isinstance(layer, MAXIMA):
            setattr(net, name, MaxPool(layer))
    return net


class _Assembly:
    """Scales the weights of one network so that every neuron fires at 1 and emits 1."""

    def __init__(self, reading: fx.GraphModule, layers: dict[str, Neurons]) -> None:
        self.net = copy.deepcopy(reading)
        self.layers = layers
        self.one = torch.ones(())
        self.modules = dict(self.net.named_children())

    def graph_module(self) -> fx.GraphModule:
        graph = self.net.graph
        units: dict[fx.Node, Tensor] = {}
        for node in list(graph.nodes):
            units[node] = self._scaled(node, units)
        for node in list(graph.nodes):
            layer = self._layer(node)
            if isinstance(layer, Rectifier) and bool((self.layers[str(node.target)].offset != 0).any()):
                self._shift(node, self.layers[str(node.target)].offset)
        graph.lint()
        self.net.recompile()
        return self.net

    def _layer(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def _scaled(self, node: fx.Node, units: dict[fx.Node, Tensor]) -> Tensor:
        """Scale what `node` computes; return the unit of what it gives."""
        if node.op == "placeholder":
            return self.one
        if node.op == "output":
            self._convert(node, node.args[0], units, self.one)  # type: ignore[arg-type]
            return self.one
        if node.target is torch.cat:
            terms: Any = node.args[0]
            return torch.cat([self._by_channel(term, units[term]) for term in terms])
        if node.op == "call_function":
            unit = self._wanted(node)
            for term in dict.fromkeys(node.args):
                self._convert(node, term, units, unit)  # type: ignore[arg-type]
            return unit
        layer, source = self._layer(node), node.args[0]
        assert layer is not None
        assert isinstance(source, fx.Node)
        if isinstance(layer, Rectifier):
            self._convert(node, source, units, self.layers[str(node.target)].unit)
            return self.layers[str(node.target)].worth
        if isinstance(layer, (*SYNAPSES, Affine)):
            unit = self._wanted(node)
            _rescale(layer, units[source], unit)
            return unit
        if isinstance(layer, nn.Flatten) and units[source].dim():
            shape = source.meta["shape"]
            return units[source].repeat_interleave(shape[2:].numel())
        return units[source]  # pooling works channel by channel

    def _by_channel(self, node: fx.Node, unit: Tensor) -> Tensor:
        like = next(iter(self.layers.values())).unit
        return unit.to(like).expand(node.meta["shape"][1])

    def _slices(self, cat: fx.Node, node: fx.Node) -> list[slice]:
        """Return which channels of a concatenation `node` gives; it may be there more than once."""
        found, start = [], 0
        terms: Any = cat.args[0]
        for term in terms:
            stop = start + term.meta["shape"][1]
            if term is node:
                found.append(slice(start, stop))
            start = stop
        return found

    def _wanted(self, node: fx.Node) -> Tensor:
        """Return the unit in which all who take from `node` want it, or 1 if they disagree."""
        found = self._demands(node)
        first = found[0] if found else self.one
        return first if all(_same(first, other) for other in found) else self.one

    def _demands(self, node: fx.Node) -> list[Tensor]:
        found: list[Tensor] = []
        for user in node.users:
            layer = self._layer(user)
            if user.op == "output":
                found.append(self.one)
            elif isinstance(layer, Rectifier):
                found.append(self.layers[str(user.target)].unit)
            elif user.target is torch.cat:
                for unit in self._demands(user):
                    found += [unit[part] if unit.dim() else unit for part in self._slices(user, node)]
            elif user.op == "call_function":
                found.append(self._wanted(user))
            elif isinstance(layer, (*AVERAGES, *MAXIMA)):
                found += self._demands(user)
            elif isinstance(layer, nn.Flatten):
                found += [unit if unit.dim() == 0 else self.one for unit in self._demands(user)]
        return found

    def _convert(self, user: fx.Node, source: fx.Node, units: dict[fx.Node, Tensor], unit: Tensor) -> None:
        """Make `user` get what `source` gives in `unit`."""
        if not _same(units[source], unit):
            self._insert(user, source, units[source] / unit, torch.zeros_like(unit))

    def _insert(self, user: fx.Node, source: fx.Node, factor: Tensor, shift: Tensor) -> None:
        name = f"{user.name}_from_{source.name}"
        affine = Affine(*torch.broadcast_tensors(factor, shift))
        self.net.add_module(name, affine)
        self.modules[name] = affine
        with self.net.graph.inserting_before(user):
            new = self.net.graph.call_module(name, (source,))
        new.meta.update(path=name, shape=source.meta["shape"])
        user.replace_input_with(source, new)

    def _shift(self, node: fx.Node, offset: Tensor) -> None:
        """Add `offset` to the input of neurons: to a bias before them if there is one of their own."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        place = source
        while place.target is operator.add and len(place.users) == 1:
            choices = [
                term
                for term in place.args
                if isinstance(term, fx.Node)
                and len(term.users) == 1
                and place.args.count(term) == 1
                and not isinstance(self._layer(term), Rectifier)
            ]
            if not choices:
                break
            place = choices[0]
        layer = self._layer(place)
        if isinstance(layer, SYNAPSES) and len(place.users) == 1:
            outputs = layer.weight.shape[0]
            bias = layer.weight.new_zeros(outputs) if layer.bias is None else layer.bias.detach()
            layer.bias = nn.Parameter(bias + offset, requires_grad=False)
        else:
            self._insert(node, source, torch.ones_like(offset), offset)


def _rescale(layer: nn.Module, source: Tensor, unit: Tensor) -> None:
    """Let `layer` take values in the unit `source` and give them in `unit`."""
    if isinstance(layer, Affine):
        layer.factor, layer.shift = layer.factor * source / unit, layer.shift / unit
        return
    assert isinstance(layer, SYNAPSES)
    weight = layer.weight.detach()
    rows = (-1, *[1] * (weight.dim() - 1))
    if source.dim():
        if (groups := getattr(layer, "groups", 1)) > 1:
            per_row = source.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
            weight = weight * per_row.reshape(*per_row.shape, *[1] * (weight.dim() - 2))
        else:
            weight = weight * source.reshape(1, -1, *[1] * (weight.dim() - 2))
    else:
        weight = weight * source
    layer.weight = nn.Parameter(weight / unit.reshape(rows if unit.dim() else ()), requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach() / unit, requires_grad=False)


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and torch.equal(a, b))


def input_norms(reading: fx.GraphModule) -> dict[str, Tensor]:
    """Return, for each `Rectifier`, the L4 norm of all weights that lead to each of its channels.

    In the ANN's units; branches that are added count together, and those without weights not at all.
    """
    modules = dict(reading.named_children())
    like = next(reading.parameters(), torch.zeros(()))

    def fourth_power(node: fx.Node) -> Tensor | None:
        if node.op == "call_function" and node.target is operator.add:
            parts = [part for part in map(fourth_power, node.args) if part is not None]  # type: ignore[arg-type]
            return torch.stack(parts).sum(0) if parts else None
        if node.target is torch.cat:
            return _joined(node, fourth_power)
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, SYNAPSES):
            return l4_norm(layer.weight).double() ** 4
        if isinstance(layer, (*AVERAGES, *MAXIMA)):
            return fourth_power(node.args[0])  # type: ignore[arg-type]
        if isinstance(layer, nn.Flatten):
            source: Any = node.args[0]
            part = fourth_power(source)
            return None if part is None else part.repeat_interleave(source.meta["shape"][2:].numel())
        if isinstance(layer, Affine):
            part = fourth_power(node.args[0])  # type: ignore[arg-type]
            return None if part is None else part * layer.factor**4
        return None

    found = {}
    for node in reading.graph.nodes:
        if node.op == "call_module" and isinstance(modules[str(node.target)], Rectifier):
            power = fourth_power(node.args[0])
            found[str(node.target)] = (
                like.new_zeros(node.meta["shape"][1]) if power is None else (power**0.25).to(like)
            )
    return found


def _joined(node: fx.Node, power: Callable[[fx.Node], Tensor | None]) -> Tensor | None:
    """Return the powers of a concatenation, zero where a branch has none."""
    terms: Any = node.args[0]
    found = [power(term) for term in terms]
    known = next((part for part in found if part is not None), None)
    if known is None:
        return None
    return torch.cat(
        [
            known.new_zeros(term.meta["shape"][1]) if part is None else part
            for term, part in zip(terms, found, strict=True)
        ]
    )


__all__ = ["MaxPool", "Neurons", "Spiking", "assemble", "converted", "fitted", "input_norms"]
