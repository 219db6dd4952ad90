"""What a network spends while it runs: spikes times the synapses they drive, and what counts by its value."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from . import layers
from .layers import Layer
from .products import Product, Taken, by_spikes, by_value
from .synapses import Synapse, Wiring
from .tracer import Placed, plain_name


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a layer of weights spends on a sample."""

    name: str
    source: str
    """The spiking layers that drive it, or ``"analogue"`` or ``"events"`` for what is not from neurons."""
    mac: float
    """Multiply-accumulates."""
    ac: float
    """Accumulates."""
    twin: float
    """Multiply-accumulates of the twin without spikes."""
    rough: float = 0.0
    """What papers report for `synops`: multiplications of the twin, times the mean firing rate of the layers
    that drive it (of its input, where that counts by its value), times steps."""

    @property
    def synops(self) -> float:
        """Synaptic operations of both kinds."""
        return self.mac + self.ac


class Meter:
    """Adds up what layers emit, and what weights meet that counts by its value."""

    def __init__(self, net: nn.Module, sample: Any, zero_weights: str = "count") -> None:
        self.net, self.zeros = net, zero_weights
        self.wiring = Wiring(net, sample, zero_weights, needed=False)
        if self.wiring.unknown:
            raise NotImplementedError(
                f"{self.wiring.unknown[0]}: its weights are not looked into, so what it spends is not known; "
                "write it with linear layers, functional.linear, matmul or cells (nn.LSTMCell), or measure "
                "the parts around it"
            )
        self.counts: dict[str, Tensor] = {}
        self.runs: Counter[str] = Counter()
        self.samples = 0
        self.met = {synapse.key: Taken(0.0, 0.0, 0.0) for synapse in self.wiring.synapses}

    def see(self, layer: Layer, spikes: Tensor, leading: int, steps: int, power: float) -> None:
        counts = spikes.sum(dim=tuple(range(leading)), dtype=torch.float64)
        self.counts[layer.name] = self.counts.get(layer.name, 0) + counts
        self._steps[layer.name] += steps
        self._batch = spikes.shape[leading - 1]

    def begin(self, layer: Layer) -> None:
        """Go on: all batches are added up."""

    def run(self, inputs: Iterable[Any]) -> None:
        """Call the network with each of `inputs`, after a reset."""
        self._steps: Counter[str] = Counter()
        net = getattr(self.net, "_orig_mod", self.net)
        values = _Values(net, self)
        with layers.untouched(self.net):
            ends = [layers.watch(layer, self) for layer in self.wiring.layers]
            try:
                net.eval()
                layers.reset(net)
                with torch.no_grad(), values.placed():
                    for x in inputs:
                        self._batch = next((len(y) for y in tree_leaves(x) if isinstance(y, Tensor)), 1)
                        net(*x if isinstance(x, tuple) else (x,))
                        values.next()
            finally:
                for end in ends:
                    end()
        self.samples += self._batch
        for name, count in self._steps.items():
            self.runs[name] += count * self._batch

    def meet(self, synapse: Synapse, product: Product, run: int, index: int) -> None:
        """Count what arrives in a call, if it counts by its value."""
        call = synapse.call(run, index)
        if call.value:
            if call.spikes and call.place is not None:
                sources = [layer for layer in self.wiring.layers if layer.name in synapse.sources]
                graded, bursts = any(x.graded for x in sources), any(x.bursts for x in sources)
                taken = by_spikes(product, call.place, self.zeros, graded=graded, bursts=bursts)
            else:
                events = bool(self.wiring.layers)
                taken = by_value(product, call.place, call.mask, self.zeros, events=events)
            before = self.met[synapse.key]
            self.met[synapse.key] = Taken(*(a + b for a, b in zip(before, taken, strict=True)))

    def rows(self) -> list[Spent]:
        """Return what each layer of weights has spent, by sample."""
        return [self._spent(synapse) for synapse in self.wiring.synapses]

    def _spent(self, synapse: Synapse) -> Spent:
        graded = {layer.name for layer in self.wiring.layers if layer.graded}
        mac, ac, rough = self.met[synapse.key]
        sources = [name for name in self.counts if name in synapse.drives or name in synapse.sources]
        if mac and not synapse.sources:
            sources.append("analogue")
        for name, psi in synapse.drives.items():
            operations = float((self.counts[name] * psi.double()).sum())
            mac, ac = (mac + operations, ac) if name in graded else (mac, ac + operations)
        twin, driven = self.wiring.twin(synapse), [self.counts[name] for name in synapse.drives]
        if driven:
            rough += twin * sum(float(c.sum()) for c in driven) / sum(c.numel() for c in driven)
        source = ", ".join(sources) or "events"
        number = self.samples
        return Spent(synapse.name, source, mac / number, ac / number, twin, rough / number)

    def steps(self) -> float:
        """Return the steps of a sample: of most layers, for one used twice in a step runs twice as many."""
        counts = sorted(runs / self.samples for runs in self.runs.values())
        return statistics.mode(counts) if counts else 1

    def rates(self) -> dict[str, float]:
        """Return the spikes of a neuron in a step, by spiking layer."""
        return {name: float(c.mean()) / self.runs[name] for name, c in self.counts.items()}


class _Values(Placed):
    """Shows a meter the products of a network as it runs."""

    def __init__(self, net: nn.Module, meter: Meter) -> None:
        super().__init__(net, meter.wiring.layers)
        self.meter = meter
        self._synapses = {synapse.key: synapse for synapse in meter.wiring.synapses}
        self._run = 0
        self._calls: Counter[Any] = Counter()

    def next(self) -> None:
        """Note that another call of the network begins."""
        self._run += 1
        self._calls.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for product in self.found(plain_name(func), args, kwargs):
            key = self.key(product)
            if key in self.meter.wiring.makes_weights:
                continue
            if key not in self._synapses:
                raise NotImplementedError(
                    f"{product.label} in {self.place or 'the network'!r}: its weights were not used on the "
                    "first batch, by which synapses are found; give a network that always does the same"
                )
            self.meter.meet(self._synapses[key], product, self._run, self._calls[key])
            self._calls[key] += 1
        return func(*args, **kwargs)
